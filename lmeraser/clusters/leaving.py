"""Sums of records that come and go: what a part's sums are after it, and the sums of who leaves, kept until they are taken out.

Whole numbers: adding and taking away gives, bit for bit, the sums of what is left.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmeraser.clusters.global_head import Sums, load_sums, save_sums
from lmeraser.clusters.leaf_sums import combine
from lmeraser.core.digest import sha256
from lmeraser.core.environment import Environment
from lmeraser.core.layout import Layout
from lmeraser.data.tensors import read_note

INT32 = np.iinfo(np.int32)


def changed(old: Sums, out: Sums, came: Sums) -> Sums | None:
    """A part's sums after records went and others came; None where they do not fit or were never in it."""
    packed = old.packed.astype(np.int64)
    packed -= out.packed
    packed += came.packed
    labels = sorted({*old.labels, *came.labels})
    place = {label: row for row, label in enumerate(labels)}
    by_label, counts = np.zeros((len(labels), old.by_label.shape[1]), dtype=np.int64), np.zeros(len(labels), dtype=np.int64)
    for sign, part in ((1, old), (-1, out), (1, came)):
        if not set(part.labels) <= place.keys():
            return None
        rows = [place[label] for label in part.labels]
        by_label[rows] += sign * part.by_label.astype(np.int64)
        counts[rows] += sign * part.counts
    if counts.min(initial=0) < 0 or not (_fits(packed) and _fits(by_label)):
        return None
    kept = counts > 0
    by_leaf = None
    if old.by_leaf is not None and out.by_leaf is not None and came.by_leaf is not None:
        by_leaf = combine([old.by_leaf, came.by_leaf], out.by_leaf)
    named = [label for label, stays in zip(labels, kept, strict=True) if stays]
    return Sums(packed.astype(np.int32), by_label[kept].astype(np.int32), counts[kept], named, by_leaf)


def _fits(sums: NDArray[np.int64]) -> bool:
    return int(sums.min(initial=0)) >= INT32.min and int(sums.max(initial=0)) <= INT32.max


def _file(copy: Layout, ids: Iterable[str]) -> Path:
    return copy.root / "leaving" / f"{sha256(' '.join(sorted(ids)).encode())[:32]}.safetensors"


def save_leaving(copy: Layout, ids: Iterable[str], sums: Sums, made_in: Environment) -> None:
    """Args: copy: of the artifacts, from which these records are left out; it is deleted when they have left."""
    save_sums(_file(copy, ids), sums, made_in)


def load_leaving(copy: Layout, ids: Iterable[str], made_in: Environment) -> Sums | None:
    """The sums of exactly these records; None where nobody made them in this environment."""
    path = _file(copy, ids)
    if not path.is_file() or read_note(path)["environment"] != made_in:
        return None
    return load_sums(path)
