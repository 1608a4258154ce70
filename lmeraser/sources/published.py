"""Published data sets below a local folder, in torchvision's layout: CIFAR-10, CIFAR-100, SVHN, GTSRB. No download happens here.

They name no persons, so each image is its own subject, named by its place in the data set: `cifar10-train-NNNNN`, counted from 0;
`gtsrb-train-CLASS-FILE`. Neither a limit nor the other data set has a say in a name.

    python -m lmeraser.sources.published ROOT cifar10 cifar100       download them into ROOT

CIFAR's own files are pickles. They are opened only after every file has the MD5 that torchvision lists for it.
"""

import csv
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmeraser.core.digest import number_from
from lmeraser.core.errors import ImageError, LmeraserError, ManifestError
from lmeraser.core.params import PublishedSource as PublishedParams
from lmeraser.core.progress import say
from lmeraser.data.images import stored_png
from lmeraser.data.records import PRIVATE, PUBLIC, TEST, TRAIN
from lmeraser.sources.base import COLUMNS, Source

COMMAND = "python -m lmeraser.sources.published"
SPLITS = (TRAIN, TEST)


@dataclass(frozen=True)
class Item:
    """One image; `pixels` reads it as (h, w, 3) uint8."""

    name: str
    label: str
    split: str
    pixels: Callable[[], NDArray[np.uint8]]

    def digest(self) -> bytes:
        pixels = self.pixels()
        return hashlib.sha256(b"%d %d " % pixels.shape[:2] + np.ascontiguousarray(pixels).tobytes()).digest()


def _class_of(name: str) -> Any:
    from torchvision import datasets

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "svhn": datasets.SVHN, "gtsrb": datasets.GTSRB}[name]


def _files(name: str, splits: Sequence[str]) -> dict[str, str | None]:
    """What must be there, below the root, and its published MD5 (None: a folder, or a file without one)."""
    kind = _class_of(name)
    if name == "svhn":
        return {kind.split_list[split][1]: kind.split_list[split][2] for split in splits}
    if name == "gtsrb":
        test = ["gtsrb/GTSRB/Final_Test/Images", "gtsrb/GT-final_test.csv"] if TEST in splits else []
        return dict.fromkeys(["gtsrb/GTSRB/Training", *test])
    listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    return {f"{kind.base_folder}/{file}": md5 for file, md5 in listed}


def check_files(root: Path, name: str, splits: Sequence[str]) -> None:
    """Raise ManifestError with the files of a data set that are missing, or not those that were published."""
    wanted = _files(name, splits)
    folders = [file for file, md5 in wanted.items() if md5 is None and not file.endswith(".csv")]
    missing = [file for file in wanted if not ((root / file).is_dir() if file in folders else (root / file).is_file())]
    if missing:
        raise ManifestError(
            f"source.path: {name} is incomplete, {len(missing)} of {len(wanted)} files are missing: {', '.join(missing)}; "
            f"put them there, or download them with `{COMMAND} ROOT {name}`"
        )
    for file, md5 in wanted.items():
        if md5 is None:
            continue
        with (root / file).open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if digest != md5:
            raise ManifestError(
                f"source.path: {file} does not match the published file: MD5 {digest[:12]}, expected {md5[:12]}; replace it, "
                f"or delete it and run `{COMMAND} ROOT {name}`"
            )


def _listed(file: Path) -> list[dict[str, str]]:
    """Rows of one of GTSRB's tables."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter=";", skipinitialspace=True))
        listed = [{key: row[key] for key in ("Filename", "ClassId")} for row in rows]
        # A name of another folder would be read from there.
        if not all(Path(row["Filename"]).name == row["Filename"] and row["ClassId"].isdecimal() for row in listed):
            raise ValueError("a row names no file or no class")
        return listed
    except (KeyError, TypeError, AttributeError, ValueError, csv.Error) as error:
        raise ManifestError(
            f"source.path: {file.name} of gtsrb cannot be read ({type(error).__name__}); extract the archive again"
        ) from error


def _check_gtsrb(root: Path, splits: Sequence[str]) -> None:
    """GTSRB has no digests of its files: its own tables say what must be there."""
    training, images = root / "gtsrb/GTSRB/Training", root / "gtsrb/GTSRB/Final_Test/Images"
    folders = sorted(folder for folder in training.iterdir() if folder.is_dir())
    known = {folder.name for folder in folders}
    problems: list[str] = [] if folders else ["Training holds no folder of a class"]
    for folder in folders:
        if not folder.name.isdecimal():
            raise ManifestError(
                f"source.path: a folder below {training.name} of gtsrb is not a class; expected 00000 to 00042: move it elsewhere"
            )
        table = folder / f"GT-{folder.name}.csv"
        listed = [row["Filename"] for row in _listed(table)] if table.exists() else []
        absent = sum(not (folder / file).is_file() for file in listed)
        if absent or not any(folder.glob("*.ppm")):
            problems.append(f"Training/{folder.name} lacks {absent or 'all'} of its images")
    if TEST in splits:
        rows = _listed(root / "gtsrb/GT-final_test.csv")
        absent = sum(not (images / row["Filename"]).is_file() for row in rows)
        if absent or not rows:
            problems.append(f"Final_Test/Images lacks {absent or 'all'} of the images that GT-final_test.csv lists")
        classes = {row["ClassId"].zfill(5) for row in rows} - known
        if classes:
            problems.append(f"Training lacks {len(classes)} classes of the test images")
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ManifestError(f"source.path: gtsrb is incomplete: {'; '.join(problems[:3])}{more}; extract the archives again")


def _read_gtsrb(data: Any, split: str) -> list[Item]:
    items = []
    for file, target in data._samples:
        path = Path(file)
        # torchvision numbers the folders that it finds; the folder's own number is the class.
        label = int(path.parent.name) if split == TRAIN else target
        place = f"{path.parent.name}-{path.stem}" if split == TRAIN else path.stem
        items.append(Item(f"gtsrb-{split}-{place}", f"{label:02d}", split, partial(_open_ppm, path)))
    return items


def _row(data: NDArray[np.uint8], row: int, channels_first: bool) -> NDArray[np.uint8]:
    """torchvision keeps SVHN as (n, 3, 32, 32) and CIFAR as (n, 32, 32, 3)."""
    pixels: NDArray[np.uint8] = data[row]
    return pixels.transpose(1, 2, 0) if channels_first else pixels


def _open_ppm(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(path, formats=("PPM",)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ManifestError(
            f"source.path: image {path.parent.name}/{path.name} of gtsrb cannot be decoded ({type(error).__name__}); "
            "extract the archive again"
        ) from error


def read_items(root: Path, name: str, splits: Sequence[str]) -> list[Item]:
    """All images of a data set's splits, in its own order. Raises: ManifestError in one line."""
    try:
        check_files(root, name, splits)
        if name == "gtsrb":
            _check_gtsrb(root, splits)
    except OSError as error:
        raise ManifestError(f"source.path: {name} cannot be read ({error.strerror}); check its permissions") from error
    kind, items = _class_of(name), []
    for split in splits:
        try:
            data = kind(root, train=split == TRAIN) if name.startswith("cifar") else kind(root, split=split)
        except Exception as error:  # whatever torchvision makes of a strange file
            raise ManifestError(
                f"source.path: torchvision cannot read {name} ({type(error).__name__}); replace its files"
            ) from error
        if name == "gtsrb":
            items += _read_gtsrb(data, split)
            continue
        for row in range(len(data)):
            label = str(data.labels[row]) if name == "svhn" else data.classes[data.targets[row]]
            items.append(Item(f"{name}-{split}-{row:05d}", label, split, partial(_row, data.data, row, name == "svhn")))
    return items


def choose(items: Sequence[Item], limit: int | None) -> list[Item]:
    """At most `limit` items, the same share of each split, by a hash of their names: a larger limit only adds."""
    if limit is None or limit >= len(items):
        return list(items)
    tests = [item for item in items if item.split == TEST]
    share = round(limit * len(tests) / len(items))
    kept = set[str]()
    for split, count in ((TEST, share), (TRAIN, limit - share)):
        names = sorted((number_from("limit", item.name), item.name) for item in items if item.split == split)
        kept |= {name for _, name in names[:count]}
    return [item for item in items if item.name in kept]


class PublishedSource(Source):
    """Training images of one data set as public records, training and test images of another as private ones.

    A public image that the private data set has too (in whichever split, and whatever the limits) is left out: erasing the
    private record could not take it out of the backbone. Erasures have no say in that.
    """

    def __init__(self, params: PublishedParams, root: Path) -> None:
        self.name = f"{params.public} and {params.private}"
        self._params, self._root = params, root
        if not root.is_dir():
            check_files(root, params.private, SPLITS)

    @cached_property
    def _items(self) -> dict[str, list[Item]]:
        params = self._params
        private = read_items(self._root, params.private, SPLITS)
        public = read_items(self._root, params.public, (TRAIN,))
        seen = {item.digest() for item in private}
        apart = [item for item in public if item.digest() not in seen]
        if len(apart) < len(public):
            say(f"source: {len(public) - len(apart)} images of {params.public} left out, {params.private} has them too")
        return {PUBLIC: choose(apart, params.public_limit), PRIVATE: choose(private, params.private_limit)}

    @cached_property
    def _by_name(self) -> dict[str, Item]:
        return {item.name: item for items in self._items.values() for item in items}

    def table(self) -> pd.DataFrame:
        rows = [(item.name, item.label, item.name, side, item.split) for side, items in self._items.items() for item in items]
        table = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object).astype(str)
        table.insert(0, "line", range(2, len(table) + 2))
        return table

    def image(self, path: str) -> bytes:
        if path not in self._by_name:
            raise ImageError(f"the path is not an image of {self.name}")
        return stored_png(self._by_name[path].pixels())


def download(root: Path, name: str) -> None:
    """Fetch a data set by torchvision. Raises: ManifestError in one line."""
    kind = _class_of(name)
    try:
        if name.startswith("cifar"):
            kind(root, download=True)
        else:
            for split in SPLITS:
                kind(root, split=split, download=True)
    except Exception as error:  # urllib, zipfile and torchvision raise many kinds
        reason = (str(error).splitlines() or [""])[0]
        raise ManifestError(f"{name} cannot be downloaded ({reason}); fetch it elsewhere and copy its files to ROOT") from error


def main(arguments: Sequence[str]) -> None:
    from typing import get_args

    from lmeraser.core.params import DataSet

    names = get_args(DataSet)
    if len(arguments) < 2 or not set(arguments[1:]) <= set(names):
        sys.exit(f"usage: {COMMAND} ROOT NAME ...   (names: {', '.join(names)})")
    try:
        for name in arguments[1:]:
            download(Path(arguments[0]), name)
    except LmeraserError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(sys.argv[1:])
