"""What `evaluate` keeps of private test images from one time to the next: their features, plain and through each cluster's frame.

Features are functions of (image, network, frame), so those of an unchanged frame need no second pass. They lie in
`.lmeraser/remembered`, for their owner alone, never in DVC or git: `_plain.safetensors`, and `SLOT.safetensors` for each frame.
A file says by digests what decides what is in it (`Key`), and the digest of its content. What is not of just this, or not whole,
is not used: it can make `evaluate` slow and never wrong.

They are personal data, of the test images' people and of those who tuned a frame. `evaluate` keeps only what the model and the
test records of now need; `superseded` tells a purge what else is there, whoever left it. Image digests stand in clear, so that a
scan finds an erased person's.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lmeraser.core.code import code_digest
from lmeraser.core.digest import canonical_json, sha256, sha256_of_file
from lmeraser.core.environment import Environment, fingerprint
from lmeraser.core.errors import LmeraserError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.data.records import TEST, read_table
from lmeraser.data.tensors import NOTE, read_note, read_tensors

PLAIN = "_plain"  # in place of a slot; no slot begins so
ENDING = ".safetensors"
MADE_BY: Any = {  # params that decide features, beside the network's file
    "pretrain": {"model", "kwargs", "small_stem", "weights"},
    **dict.fromkeys(("device", "image", "features", "embed"), True),
}
CODE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Key:
    """What decides features. Attributes: digests: backbone: of its file; params, environment, code: of these; frame: or PLAIN."""

    backbone: str
    params: str
    environment: str
    code: str
    frame: str = PLAIN


def key_of(layout: Layout, params: Params, made_in: Environment) -> Key:
    """Of features without a frame. Args: made_in: what this process computes in.

    All code counts: it changes seldom, and a list by hand forgets what comes to decide.
    """
    values = canonical_json(params.model_dump(mode="json", include=MADE_BY))
    return Key(sha256_of_file(layout.backbone), sha256(values), fingerprint(made_in), code_digest(CODE))


def frame_digest(frame: NDArray[np.float32]) -> str:
    return sha256(f"{frame.dtype.str} {frame.shape} ".encode() + np.ascontiguousarray(frame).tobytes())


@dataclass(frozen=True)
class Rows:
    """Features of some images. Attributes: images: (n,) SHA-256 of each, sorted, each once; features: (n, d) float32."""

    images: list[str]
    features: NDArray[np.float32]


def file_of(layout: Layout, slot: str) -> Path:
    return layout.remembered / f"{slot}{ENDING}"


def write(layout: Layout, slot: str, key: Key, rows: Rows) -> None:
    """Raises: OSError."""
    if layout.remembered.is_symlink():  # no scan follows it
        layout.remembered.unlink()
    layout.remembered.mkdir(parents=True, exist_ok=True, mode=0o700)
    images = np.frombuffer("".join(f"{image}\n" for image in rows.images).encode(), dtype=np.uint8)
    note = vars(key) | {"content": _content(key, images, rows.features)}
    arrays: dict[str, NDArray[Any]] = {"images": images, "features": np.ascontiguousarray(rows.features)}
    write_atomically(file_of(layout, slot), save(arrays, metadata={NOTE: canonical_json(note).decode().strip()}), mode=0o600)


def _content(key: Key, images: NDArray[np.uint8], features: NDArray[np.float32]) -> str:
    """Digest of rows and of what they are of, so that no file's rows pass for another's."""
    shape = f"{features.dtype.str} {features.shape} ".encode()
    return sha256(canonical_json(vars(key)) + shape + images.tobytes() + features.tobytes())


@dataclass(frozen=True)
class Found:
    """What lies in a file. Attributes: rows: None where they cannot be used; why: in words, if that is worth telling."""

    rows: Rows | None
    why: str | None = None


BROKEN = (LmeraserError, OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError)  # whatever a file may hold


def listed(layout: Layout, slot: str, key: Key) -> list[str]:
    """The images that a file says it has rows of, if it is of just this key: its content is not compared. Raises nothing."""
    try:
        with safe_open(file_of(layout, slot), framework="numpy") as file:
            return _lines(file.get_tensor("images")) if _told(_note(file), *vars(key)) == vars(key) else []
    except BROKEN:
        return []


def _told(note: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: note.get(name) for name in names}


def _images(path: Path) -> list[str]:
    with safe_open(path, framework="numpy") as file:
        return _lines(file.get_tensor("images"))


def _lines(images: NDArray[np.uint8]) -> list[str]:
    return images.tobytes().decode("ascii").splitlines()


def _note(file: Any) -> dict[str, Any]:
    """Of an opened file: one look at its header serves the note and the arrays."""
    note: dict[str, Any] = json.loads(file.metadata()[NOTE])
    return note


def read(layout: Layout, slot: str, key: Key) -> Found:
    """The rows that are of just this key. Whatever the file holds, nothing is raised."""
    path = file_of(layout, slot)
    if not path.is_file() or layout.remembered.is_symlink():
        return Found(None)
    try:
        with safe_open(path, framework="numpy") as file:
            note = _note(file)
            if _told(note, *vars(key)) != vars(key):
                model = ("backbone", "frame")  # another one is the usual case
                same = _told(note, *model) == {name: vars(key)[name] for name in model}
                return Found(None, "of other code, params or another environment" if same else None)
            data, features = file.get_tensor("images"), file.get_tensor("features")
        images = _lines(data)
        whole = note.get("content") == _content(key, data, features) and features.ndim == 2 and len(images) == len(features)
    except BROKEN:
        return Found(None, "damaged")
    return Found(Rows(images, features)) if whole else Found(None, "damaged")


def keep_only(layout: Layout, slots: Sequence[str]) -> None:
    """Delete all but the files of these slots, drafts of killed writes too. Raises: OSError."""
    kept = {file_of(layout, slot) for slot in slots}
    for path in _there(layout):
        if path in kept and path.is_file():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if not kept and layout.remembered.is_dir():
        layout.remembered.rmdir()


def _there(layout: Layout) -> list[Path]:
    """What lies there; a link that stands in the folder's place, since what it leads to is not ours to keep or delete."""
    if layout.remembered.is_symlink():
        return [layout.remembered]
    return sorted(layout.remembered.iterdir()) if layout.remembered.is_dir() else []


def superseded(layout: Layout, params: Params) -> list[Path]:
    """The files that are not of the model and the test records of now alone: `evaluate` may not have run since these changed."""
    files = _there(layout)
    if not files or not params.evaluate.remember:
        return files
    try:
        backbone, tests = sha256_of_file(layout.backbone), _test_images(layout, params)
    except (LmeraserError, OSError):  # nothing tells what is of now
        return files
    return [path for path in files if not _is_of(path, layout, backbone, tests)]


def _test_images(layout: Layout, params: Params) -> set[str]:
    """Image digests of the private test records."""
    digests = set[str]()
    for part in params.parts:
        table = read_table(layout.part(part), ("sha256", "split"))
        digests |= set(table.filter(pc.equal(table["split"], TEST))["sha256"].to_pylist())
    return digests


def _is_of(path: Path, layout: Layout, backbone: str, tests: set[str]) -> bool:
    """Whether a file is of this backbone, of the frame that its slot has now, and of these images."""
    try:
        slot = path.name.removesuffix(ENDING)
        frame = PLAIN if slot == PLAIN else frame_digest(read_tensors(layout.tuned(slot))[0]["frame"])
        told = _told(read_note(path), "backbone", "frame")
        return told == {"backbone": backbone, "frame": frame} and tests.issuperset(_images(path))
    except BROKEN:
        return False
