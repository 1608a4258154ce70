"""Small hand-written builders: params, images, sources, records and trees, with canaries for personal values.

A canary is a value that no message may show. `refused` is how every test provokes a refusal: it checks the type, the exit
status, that the message is one line, and that no canary is in it.
"""

import copy
import functools
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from PIL import Image

from lmeraser.clusters.files import Member
from lmeraser.clusters.hierarchy import Hierarchy, grow
from lmeraser.clusters.skeleton import PublicFeatures, Skeleton, build_skeleton
from lmeraser.core.digest import sha256
from lmeraser.core.errors import BlockedError, CheckFailedError, LmeraserError
from lmeraser.core.params import ImageParams, Params
from lmeraser.data.records import PRIVATE, Record, record_id
from lmeraser.erase.plan import Plan
from lmeraser.sources.base import COLUMNS

if TYPE_CHECKING:  # torch costs seconds where it is not needed
    from lmeraser.learn.backbone import Backbone

ROOT = Path(__file__).resolve().parents[1]  # the repository
CANARY_SUBJECT = "CANARY-anna-7f3"
CANARY_LABEL = "CANARY-label-5d2"
CANARY_PATH = "CANARY-path-9c1.png"
MAX_PIXELS = 1_000_000


def exit_code_of(kind: type[LmeraserError]) -> int:
    """What the error tree promises: 3 blocked, 1 a check failed, 2 bad input."""
    if issubclass(kind, BlockedError):
        return 3
    return 1 if issubclass(kind, CheckFailedError) else 2


def refused(kind: type[LmeraserError], act: Callable[[], object]) -> str:
    """Run `act`, which must refuse with `kind`; returns the message, which is one line and holds no canary."""
    caught: LmeraserError | None = None
    try:
        act()
    except LmeraserError as error:
        caught = error
    assert caught is not None, f"nothing was refused; expected {kind.__name__}"
    assert type(caught) is kind, f"{type(caught).__name__}: {caught}"
    assert caught.exit_code == exit_code_of(kind)
    assert_clean(str(caught))
    return str(caught)


def assert_clean(message: str) -> None:
    """One line that says something, and no canary."""
    assert message.strip()
    assert message.splitlines() == [message]
    assert "CANARY" not in message


# params


@functools.cache
def _repositorys_params() -> dict[str, Any]:
    """Read once: PyYAML takes a hundredth of a second for it. Never change it."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return raw


def raw_params(changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The repository's params.yaml as a dictionary, changed at dotted names."""
    raw = copy.deepcopy(_repositorys_params())
    for name, value in (changes or {}).items():
        *sections, key = name.split(".")
        inner = raw
        for section in sections:
            inner = inner[section]
        inner[key] = copy.deepcopy(value)
    return raw


def make_params(changes: Mapping[str, Any] | None = None) -> Params:
    return Params.model_validate(raw_params(changes))


TINY = {
    "image": {"size": 8, "channels": 1, "interpolation": "bilinear", "crop": 1.0, "max_pixels": MAX_PIXELS},
    "pretrain.kwargs": {"layers": [1, 1, 1, 1], "channels": [4, 8, 8, 8], "stem_width": 4},
    "pretrain.epochs": 1,
    "pretrain.batch": 16,
    "pretrain.precision": "float32",
    "skeleton.leaves": 4,
    "projection.dim": 16,
    "embed.batch": 8,
    "tune.epochs": 2,
    "tune.batch": 8,
    "tune.min_batch": 4,
    "tune.frame_px": 2,
    "tune.precision": "float32",
    "evaluate.min_group": 3,
}


def tiny_params(changes: Mapping[str, Any] | None = None) -> Params:
    """A network of a few thousand weights for 8 px images: tests train in milliseconds."""
    return make_params(TINY | dict(changes or {}))


# images


def image_params(size: int, channels: int, interpolation: str = "bilinear", crop: float = 1.0) -> ImageParams:
    raw = {"size": size, "channels": channels, "interpolation": interpolation, "crop": crop, "max_pixels": MAX_PIXELS}
    return ImageParams.model_validate(raw)


def pixels(seed: int, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def png(seed: int = 0, side: int = 8) -> bytes:
    """A grey PNG of random pixels; another seed is another image."""
    return encoded(Image.fromarray(pixels(seed, side, side, 1)))


# sources


@dataclass(frozen=True)
class Row:
    """One row of a manifest; the image is made from `seed`."""

    subject: str
    label: str
    visibility: str = PRIVATE
    split: str = "train"
    seed: int = 0
    path: str = ""

    def named(self, index: int) -> "Row":
        return self if self.path else Row(self.subject, self.label, self.visibility, self.split, self.seed, f"image-{index}.png")


def standard_rows() -> list[Row]:
    """Two public people and three private ones, two labels each; one of them (ada) in train and in test."""
    return [
        Row("pub-1", "one", "public", seed=1),
        Row("pub-2", "two", "public", seed=2),
        Row("ada", "one", seed=3),
        Row("ada", "two", seed=4),
        Row("ada", "two", split="test", seed=5),
        Row("ben", "two", seed=6),
        Row("cem", "one", seed=7),
    ]


def write_source(folder: Path, rows: Sequence[Row], kind: str = "csv") -> Path:
    """A manifest source: the images, then manifest.csv or manifest.parquet; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    named = [row.named(index) for index, row in enumerate(rows)]
    for row in named:
        target = folder / row.path
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(png(row.seed))
    write_manifest(folder, [(r.path, r.label, r.subject, r.visibility, r.split) for r in named], kind)
    return folder


def write_manifest(folder: Path, rows: Sequence[Sequence[str]], kind: str = "csv") -> Path:
    frame = pd.DataFrame(list(rows), columns=list(COLUMNS))
    path = folder / f"manifest.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return path


# records, members and trees


def make_record(
    subject: str, label: str = "one", visibility: str = PRIVATE, split: str = "train", image: bytes = b"image"
) -> Record:
    digest = sha256(image)
    return Record(record_id(digest, subject, label, visibility, split), digest, label, subject, split)


def example_plan(**changes: Any) -> Plan:
    """The plan of one person with two training records in one of three clusters."""
    plan = Plan(
        subjects=1,
        records_removed=2,
        train_removed=2,
        test_removed=0,
        public_removed=0,
        parts=["p00"],
        slots_retrained=["c00"],
        slots_emptied=[],
        clusters_total=3,
        records_retrained=10,
        records_total=30,
        cut_changes=False,
        labels_lost=0,
        shared_images=0,
        rebuild=False,
        exact=True,
        source="outside the project's control",
    )
    return replace(plan, **changes)


def make_tree(seed: int, leaves: int, units: int = 40, dim: int = 3) -> Hierarchy:
    """A hierarchy grown from random public units."""
    return grow(whole_numbers(np.random.default_rng(seed), units, dim), leaves)


def whole_numbers(rng: np.random.Generator, n: int, dim: int, limit: int = 1024) -> NDArray[np.float64]:
    return rng.integers(-limit, limit + 1, (n, dim)).astype(np.float64)


def members_on(leaves: Sequence[int]) -> list[Member]:
    """One private training record, of a unit of its own, on each of the leaves."""
    return [
        Member(sha256(b"%d" % index)[:32], sha256(b"image %d" % index), "one", f"unit-{index:04d}", leaf, "p00")
        for index, leaf in enumerate(leaves)
    ]


def slot_names(count: int) -> list[str]:
    return [f"c{index:02d}" for index in range(count)]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


# learning


@dataclass(frozen=True)
class Lab:
    """A tiny pretrained backbone and its skeleton, as the pipeline makes them."""

    params: Params
    backbone: "Backbone"
    skeleton: Skeleton
    backbone_file: Path


def striped(n: int, seed: int, channels: int = 1, side: int = 8) -> tuple[list[str], NDArray[np.uint8], list[str]]:
    """Record ids (sorted), (n, s, s, c) uint8 and labels: noise with bright columns (`across`) or rows (`down`)."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 120, (n, side, side, channels), dtype=np.uint8)
    labels = [("across", "down")[int(draw)] for draw in rng.integers(0, 2, n)]
    for image, label in zip(noise, labels, strict=True):
        if label == "across":
            image[:, ::2] += 120
        else:
            image[::2] += 120
    return sorted(sha256(b"%d %d" % (seed, index))[:32] for index in range(n)), noise, labels


def public_features(
    rows: NDArray[np.float32], unit: NDArray[np.int64], labels: Sequence[str] = (), widths: Sequence[int] = ()
) -> PublicFeatures:
    """Features of public records, a person a unit; of one label and one depth where nothing else is said."""
    names = list(labels) or ["one"] * len(rows)
    return PublicFeatures(rows, tuple(widths) or (rows.shape[1],), unit, names, [f"public-{number}" for number in unit])


def make_lab(folder: Path, changes: Mapping[str, Any] | None = None) -> Lab:
    """Pretrain on 48 striped public images, freeze, and build the skeleton."""
    from lmeraser.learn.backbone import load_backbone, make_deterministic, save_backbone
    from lmeraser.learn.pretraining import pretrain_backbone

    params = tiny_params(changes)
    make_deterministic(params.device)
    ids, images, labels = striped(48, seed=0, channels=params.image.channels, side=params.image.size)
    model, mean, std = pretrain_backbone(ids, images, labels, params)
    path = folder / "backbone.safetensors"
    save_backbone(path, model, mean, std, params)
    backbone = load_backbone(path, params)
    rows = backbone.features(images, params.embed.batch)
    skeleton = build_skeleton(public_features(rows, np.arange(48) // 2, labels, backbone.widths), params)
    return Lab(params, backbone, skeleton, path)
