"""People's images for a comparison over given backbones: who is public, or which images are drawn, is a seed's to say."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.lab import ROOT
from bench.lab.changes import changed
from bench.lab.presets import backbone_preset
from bench.lab.sources import laid_out
from lmeraser.core.digest import number_from
from lmeraser.core.params import Params
from lmeraser.data.records import TEST, TRAIN, Record
from lmeraser.sources import open_source
from lmeraser.sources.splitting import split_source

PEOPLE = {"signdigits": "signdigits64_q85", "mnist": "mnist10k_writers", "omniglot": "omniglot8_105bit"}
IMAGES = {"cifar10": ("cifar10_q75", "cifar100_q75"), "cifar100": ("cifar100_q75", "cifar10_q75")}  # private, public
DATA = (*PEOPLE, *IMAGES)
PUBLIC_SHARE = 0.4  # of the training people
DRAWN = 12_000  # images of each pack, of which so many stay:
TRAIN_IMAGES, TEST_IMAGES, PUBLIC_IMAGES = 8000, 2000, 4000
SMALL = 84  # px, side at which a transformer sees images of 28 and 32 px
SMALL_DATA = ("mnist", *IMAGES)


def params_of(data_name: str, backbone: str, seed: int) -> Params:
    """A backbone's preset for a data set. Of published images each is its own subject: the unit is the record."""
    preset = backbone_preset(backbone)
    changes: dict[str, object] = {"seed": seed, "source.path": f"/path/to/{data_name}"}
    if "img_size" in preset.pretrain.kwargs and data_name in SMALL_DATA:
        changes |= {"image.size": SMALL, "pretrain.kwargs": preset.pretrain.kwargs | {"img_size": SMALL}}
    if data_name in IMAGES:
        changes["cluster.unit"] = "record"
    return changed(preset, changes)


@dataclass(frozen=True)
class People:
    """Records sorted by id, and every image by its SHA-256."""

    public: list[Record]  # training records alone
    train: list[Record]  # private
    test: list[Record]
    images: dict[str, bytes]


def _options(data_name: str, seed: int) -> list[str]:
    if data_name in PEOPLE:
        return ["--private", PEOPLE[data_name], "--public-fraction", str(PUBLIC_SHARE), "--seed", str(seed)]
    private, public = IMAGES[data_name]
    return ["--private", private, "--public", public, "--limit", str(DRAWN), "--seed", str(seed)]


def thin_out(rows: pd.DataFrame) -> pd.DataFrame:
    """So many rows of each kind as are drawn, by a hash of their paths: a set that is public here may be private elsewhere."""
    order = rows.assign(rank=[number_from("drawn", path) for path in rows["path"]]).sort_values("rank")
    kinds = (("private", TRAIN, TRAIN_IMAGES), ("private", TEST, TEST_IMAGES), ("public", TRAIN, PUBLIC_IMAGES))
    kept = [
        order[(order["visibility"] == visibility) & (order["split"] == split)].head(count) for visibility, split, count in kinds
    ]
    return pd.concat(kept).drop(columns="rank")


def read_people(data_name: str, params: Params) -> People:
    """What `split` makes of a data set under the params' seed."""
    with laid_out(_options(data_name, params.seed)) as folder:
        if data_name in IMAGES:
            manifest = folder / "manifest.csv"
            thin_out(pd.read_csv(manifest, dtype=str, keep_default_na=False)).to_csv(manifest, index=False)
        return _split(folder, params)


def _split(folder: Path, params: Params) -> People:
    located = params.source.model_copy(update={"path": str(folder)})
    split = split_source(open_source(located, ROOT), lambda _: False, len(params.parts), params.image.max_pixels)
    private = [pair for part in split.private for pair in part]

    def chosen(pairs: Sequence[tuple[Record, bytes]], name: str) -> list[Record]:
        return sorted(record for record, _ in pairs if record.split == name)

    images = {record.sha256: image for record, image in (*split.public, *private)}
    return People(chosen(split.public, TRAIN), chosen(private, TRAIN), chosen(private, TEST), images)
