"""What is measured: data sets, ways to train, and the params of each.

Synthetic people: 8 px grey images of ten noisy prototypes, two records a person, as PNG files that are written without Pillow
(a million of them take a minute and not ten).
"""

import subprocess
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bench.lab import ROOT
from bench.lab.changes import changed
from bench.lab.presets import preset_of
from bench.lab.sources import COPIES, PACKS, shared_data
from lmeraser.core.digest import number_from
from lmeraser.core.params import IN_ROOT, Params, slot_name
from lmeraser.sources import COLUMNS

SIDE, LABELS, NOISE = 8, 10, 40.0  # px; prototypes; of the pixels' normal noise
PUBLIC, TEST, PER_PERSON = 4_000, 1_000, 2  # records
PER_PART, MOST_SLOTS, A_FOLDER = 16_384, 512, 1_000  # records of a part; slots; files of a folder
BY_FILE = 20_000  # private records from which source.path names the manifest: DVC would look at every image in a folder
NEWCOMERS = 500  # records of an addition
ADDED = "added"  # begins the names of people who come later
PNG_HEAD = b"\x89PNG\r\n\x1a\n"

WAYS: dict[str, dict[str, object]] = {
    "heads": {"tune.kind": "closed", "projection.kind": "plain", "projection.levels": 127, "head.kind": "discriminant"},
    "prompts": {"tune.kind": "sgd"},
}
TREE = "tree"
METHODS = (TREE, "random", "anchors")  # ours, as SISA divides, as the paper does
SHARDS = 20  # of SISA's way
# CIFAR-10's clusters: how many leaves, and above how many records a node is split, for about so many of them.
CIFAR_CUTS = {115: (128, 500), 500: (560, 115)}
CIFAR_SHARDS = 4  # as `lmeraser parts` advises
DIGITS_SLOTS = 16


@dataclass(frozen=True)
class Ground:
    """One project to measure.

    Attributes: records: private training ones; clusters: that are asked for; epochs: of CIFAR-10's network, None: the preset's.
    """

    data: str
    records: int
    clusters: int
    way: str
    method: str = TREE
    epochs: int | None = None

    @property
    def name(self) -> str:
        return f"{self.results}-{self.records}-{self.way}-{self.method}-{self.clusters}"

    @property
    def results(self) -> str:
        """The data set as its table is named: what stands beside other builds is not to be compared with these."""
        return self.data if self.epochs is None else f"{self.data}-epochs{self.epochs}"

    @property
    def by_file(self) -> bool:
        return self.data != "digits" and self.records >= BY_FILE

    @property
    def slots(self) -> int:
        return CIFAR_CUTS[self.clusters][0] if self.data == "cifar10" else self.clusters


def synthetic(records: int, way: str, method: str = TREE) -> Ground:
    """A cluster for a hundred records, at most MOST_SLOTS; SISA's shards; as many of the paper's clusters as its params say."""
    if method == TREE:
        return Ground("synthetic", records, min(max(records // 100, 2), MOST_SLOTS), way)
    return Ground("synthetic", records, SHARDS if method == "random" else preset_of("digits").cluster.k, way, method)


def params_of(ground: Ground, source: Path) -> Params:
    """The params of a project, with all of its slots; above IN_ROOT of them `lmeraser slots` writes the pipeline files."""
    preset = preset_of("cifar10" if ground.data == "cifar10" else "digits")
    changes = dict(WAYS[ground.way])
    if ground.data != "digits":
        changes["source"] = {"kind": "manifest", "path": str(source), "erase": False}
        changes |= {"slots": [slot_name(number) for number in range(min(ground.slots, IN_ROOT))]}
    if ground.data == "cifar10":
        changes["cluster.n_max"] = CIFAR_CUTS[ground.clusters][1]
        changes["shards"] = CIFAR_SHARDS
        changes |= {} if ground.epochs is None else {"pretrain.epochs": ground.epochs}
    if ground.data == "synthetic":
        changes |= _synthetic_changes(ground)
    return changed(preset, changes | {"skeleton.leaves": min(ground.slots, IN_ROOT)})


def _synthetic_changes(ground: Ground) -> Mapping[str, object]:
    parts = max(4, -(-ground.records // PER_PART))
    changes: dict[str, object] = {
        "parts": [f"p{number:02d}" for number in range(parts)],
        "image.size": SIDE,
        "pretrain.epochs": 1,
        "pretrain.batch": 128,
        "projection.dim": 512,
        "cluster.unit": "subject",
        "cluster.method": ground.method,
        "cluster.n_max": max(20, 2 * ground.records // ground.slots),
        "tune.epochs": 2,
        "tune.frame_px": 1,
        "evaluate.linear_head": False,
    }
    if ground.method == "random":
        changes["cluster.n_max"] = PER_PERSON  # every leaf is a shard
    if ground.method == "anchors":
        changes["cluster.unit"] = "record"  # as the paper has it
    return changes


def write_source(ground: Ground, folder: Path) -> Path:
    """Write the images and the manifest of a data set, as a user has them. Returns: what source.path is to name."""
    if ground.data == "digits":
        return ROOT / preset_of("digits").source.path
    if ground.data == "cifar10":
        script = [sys.executable, "-B", str(shared_data() / "to_manifest.py"), str(folder), *PACKS["cifar10"]]
        subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
        rows = read_manifest(folder / "manifest.csv")
        write_manifest(folder / "manifest.csv", rows[~rows["path"].isin(COPIES)])
        return folder / "manifest.csv"
    folder.mkdir(parents=True)
    subjects = [
        *(f"public-{number:07d}" for number in range(PUBLIC)),
        *(f"person-{number // PER_PERSON:07d}" for number in range(ground.records)),
        *(f"test-{number:07d}" for number in range(TEST)),
    ]
    rows = write_people(folder, "", subjects, seed=1)
    rows["visibility"] = ["public"] * PUBLIC + ["private"] * (ground.records + TEST)
    rows["split"] = ["train"] * (PUBLIC + ground.records) + ["test"] * TEST
    manifest = folder / ("manifest.parquet" if ground.by_file else "manifest.csv")
    write_manifest(manifest, rows)
    return manifest if ground.by_file else folder


def write_newcomers(ground: Ground, people: Path, folder: Path, number: int) -> None:
    """A folder with its own manifest of NEWCOMERS records of new people: drawn, or mirrored images of those who are there."""
    folder.mkdir()
    subjects = [f"{ADDED}-{number}-{record // PER_PERSON:05d}" for record in range(NEWCOMERS)]
    prefix = f"{ADDED}-{number}/"
    if ground.data == "synthetic":
        rows = write_people(folder, prefix, subjects, seed=100 + number)
    else:
        there = read_manifest(manifest_of(people))
        private = there[(there["visibility"] == "private") & (there["split"] == "train")]
        chosen = private.iloc[NEWCOMERS * number : NEWCOMERS * (number + 1)]
        (folder / prefix).mkdir()
        rows = chosen.assign(subject=subjects, path=[f"{prefix}{record}.png" for record in range(NEWCOMERS)])
        for old, new in zip(chosen["path"], rows["path"], strict=True):
            with Image.open(people / old) as image:
                ImageOps.mirror(image).save(folder / new)
    write_manifest(folder / "manifest.csv", rows.assign(visibility="private", split="train"))


def manifest_of(folder: Path) -> Path:
    return next(path for name in ("manifest.parquet", "manifest.csv") if (path := folder / name).exists())


def read_manifest(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str, keep_default_na=False)


def write_manifest(path: Path, rows: pd.DataFrame) -> None:
    rows = rows[list(COLUMNS)]
    if path.suffix == ".parquet":
        rows.to_parquet(path, index=False)
    else:
        rows.to_csv(path, index=False)


def people_of(rows: pd.DataFrame) -> list[str]:
    """Private people who train and were there from the start, in an order that their names decide."""
    private = rows.loc[(rows["visibility"] == "private") & (rows["split"] == "train"), "subject"].unique()
    return sorted((name for name in private if not name.startswith(ADDED)), key=lambda name: number_from("erasure", name))


def write_people(folder: Path, prefix: str, subjects: list[str], seed: int) -> pd.DataFrame:
    """Draw an image for each and write it. Returns: path, label and subject of each. Args: prefix: of the paths."""
    drawing = np.random.default_rng(seed)
    labels = drawing.integers(LABELS, size=len(subjects))
    paths = []
    for start in range(0, len(subjects), A_FOLDER):
        place = f"{prefix}{start // A_FOLDER:05d}"
        (folder / place).mkdir(parents=True)
        images = stored_png(draw(labels[start : start + A_FOLDER], drawing))
        for row, image in enumerate(images, start):
            paths.append(f"{place}/{row}.png")
            with open(f"{folder}/{paths[-1]}", "wb", buffering=0) as file:  # noqa: PTH123  (a million times)
                file.write(image)
    return pd.DataFrame({"path": paths, "label": [f"l{label}" for label in labels], "subject": subjects})


def draw(labels: NDArray[np.int64], drawing: np.random.Generator) -> NDArray[np.uint8]:
    """(n, SIDE, SIDE) grey: the label's prototype and noise."""
    prototypes = np.random.default_rng(0).integers(0, 256, (LABELS, SIDE, SIDE))
    return np.clip(prototypes[labels] + drawing.normal(0, NOISE, (len(labels), SIDE, SIDE)), 0, 255).astype(np.uint8)


def stored_png(pixels: NDArray[np.uint8]) -> list[bytes]:
    """PNG files of grey images of one size, stored without compression (RFC 1950 and 1951; PNG specification, third edition).

    Args: pixels: (n, h, w), h * (w + 1) at most 65,535.
    """
    count, height, width = pixels.shape
    lines = np.zeros((count, height, width + 1), np.uint8)  # each line begins with its filter: none
    lines[:, :, 1:] = pixels
    size = height * (width + 1)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])  # 8 bits, grey
    before = PNG_HEAD + _chunk(b"IHDR", header) + (size + 11).to_bytes(4, "big")
    # zlib's header for no compression; then one block, the last, stored: its length and the length's complement
    stored = b"IDAT\x78\x01\x01" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little")
    end = _chunk(b"IEND", b"")
    files = []
    for image in lines.reshape(count, size):
        raw = image.tobytes()
        data = stored + raw + zlib.adler32(raw).to_bytes(4, "big")
        files.append(before + data + zlib.crc32(data).to_bytes(4, "big") + end)
    return files


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
