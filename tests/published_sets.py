"""Small files in the layouts of CIFAR-10, CIFAR-100, SVHN and GTSRB, and their MD5s put where torchvision looks for them."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from lmeraser.core.params import PublishedSource

TRAIN_FILES = {"cifar10": [f"data_batch_{n}" for n in range(1, 6)], "cifar100": ["train"]}
LABELS = {"cifar10": ["airplane", "cat", "dog"], "cifar100": ["apple", "bee", "cup", "fox"]}
FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
Images = NDArray[np.uint8]


def images(seed: int, count: int) -> Images:
    """(n, 32, 32, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def _batch(pixels: Images, first: int, key: str, classes: int) -> dict[str, Any]:
    rows = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), 3072)  # red, green, blue planes
    return {"data": rows, key: [(first + n) % classes for n in range(len(pixels))], "filenames": ["x"] * len(pixels)}


def write_cifar(root: Path, name: str, train: Images, test: Images) -> None:
    """As the archive holds it: pickled batches of 3,072 bytes a row, and the names of the labels."""
    folder = root / FOLDERS[name]
    folder.mkdir(parents=True)
    key = "labels" if name == "cifar10" else "fine_labels"
    files, first = TRAIN_FILES[name], 0
    for file, part in zip(files, np.array_split(train, len(files)), strict=True):
        (folder / file).write_bytes(pickle.dumps(_batch(part, first, key, len(LABELS[name]))))
        first += len(part)
    (folder / ("test_batch" if name == "cifar10" else "test")).write_bytes(pickle.dumps(_batch(test, 0, key, len(LABELS[name]))))
    names = {"label_names" if name == "cifar10" else "fine_label_names": LABELS[name]}
    (folder / ("batches.meta" if name == "cifar10" else "meta")).write_bytes(pickle.dumps(names))


def write_svhn(root: Path, train: Images, test: Images) -> None:
    """MATLAB files: X (32, 32, 3, n), y (n, 1) from 1 to 10, where 10 is the digit 0."""
    root.mkdir(parents=True, exist_ok=True)
    for split, pixels in (("train", train), ("test", test)):
        y = (np.arange(len(pixels)) % 10 + 1).astype(np.uint8)[:, None]
        savemat(root / f"{split}_32x32.mat", {"X": pixels.transpose(1, 2, 3, 0), "y": y})


def write_gtsrb(
    root: Path, per_class: int = 3, classes: tuple[int, ...] = (0, 7, 42), test: int = 4, tables: bool = True
) -> None:
    """A folder of PPM images a class with its table, and a folder of test images with theirs."""
    head = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
    base = root / "gtsrb" / "GTSRB"
    for label in classes:
        folder = base / "Training" / f"{label:05d}"
        folder.mkdir(parents=True)
        for n in range(per_class):
            shape = (20 + n, 25, 3)
            pixels = np.random.default_rng(1000 * label + n).integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"00000_{n:05d}.ppm")
        if tables:
            rows = "".join(f"00000_{n:05d}.ppm;25;20;5;5;20;15;{label}\n" for n in range(per_class))
            (folder / f"GT-{label:05d}.csv").write_text(head + rows)
    target = base / "Final_Test" / "Images"
    target.mkdir(parents=True)
    for n in range(test):
        Image.fromarray(images(77, test)[n]).save(target / f"{n:05d}.ppm")
    rows = "".join(f"{n:05d}.ppm;32;32;5;5;27;27;{classes[n % len(classes)]}\n" for n in range(test))
    (root / "gtsrb" / "GT-final_test.csv").write_text(head + rows)


def publish(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Let torchvision believe that the files below a root are those that were published."""

    def md5(path: Path) -> str:
        return hashlib.md5(path.read_bytes()).hexdigest() if path.exists() else "0" * 32  # noqa: S324 (torchvision's digest)

    for kind in (datasets.CIFAR10, datasets.CIFAR100):
        folder = root / kind.base_folder
        for listed in ("train_list", "test_list"):
            monkeypatch.setattr(kind, listed, [[file, md5(folder / file)] for file, _ in getattr(kind, listed)])
        monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(folder / kind.meta["filename"])})
    changed = {split: [url, file, md5(root / file)] for split, (url, file, _) in datasets.SVHN.split_list.items()}
    monkeypatch.setattr(datasets.SVHN, "split_list", changed)


def write_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All four data sets, 40 and 8 images or fewer each; three of CIFAR-100's training images are CIFAR-10's too."""
    ten = images(1, 48)
    hundred = images(2, 48)
    hundred[[3, 17]] = ten[[0, 31]]
    hundred[5] = ten[44]  # a test image of CIFAR-10
    write_cifar(root, "cifar10", ten[:40], ten[40:])
    write_cifar(root, "cifar100", hundred[:40], hundred[40:])
    write_svhn(root, images(3, 24), images(4, 6))
    write_gtsrb(root)
    publish(monkeypatch, root)
    return root


def published(root: Path, public: str = "cifar100", private: str = "cifar10", **changes: Any) -> PublishedSource:
    raw = {"kind": "torchvision", "path": str(root), "public": public, "private": private}
    return PublishedSource.model_validate(raw | {"public_limit": None, "private_limit": None, "erase": False} | changes)
