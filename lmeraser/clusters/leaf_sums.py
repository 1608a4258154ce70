"""Sums by public leaf and label: whole numbers from which every cluster's own class means follow by addition.

A cluster is a range of leaves, so wherever the hierarchy is cut, its sums are those of its leaves, and a record leaves by
subtraction. A row of few records tells much of them: these sums lie where the records' images lie, and are purged with them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LeafSums:
    """Attributes (r rows, p summands): leaves: (r,); labels: the r rows' own; sums: (r, p); counts: (r,) records, none zero.

    Rows are sorted by leaf and label, each pair once.
    """

    leaves: NDArray[np.int64]
    labels: list[str]
    sums: NDArray[np.int32]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, summands: NDArray[np.float64], leaves: NDArray[np.int64], labels: Sequence[str]) -> "LeafSums":
        """Args: summands: (n, p) whole numbers; leaves: (n,) of each record's unit; labels: (n,)."""
        keys = sorted(set(zip(leaves.tolist(), labels, strict=True)))
        place = {key: row for row, key in enumerate(keys)}
        rows = np.array([place[key] for key in zip(leaves.tolist(), labels, strict=True)], dtype=np.int64)
        sums = np.zeros((len(keys), summands.shape[1]))
        np.add.at(sums, rows, summands)
        return cls._made(keys, sums, np.bincount(rows, minlength=len(keys)))

    @classmethod
    def _made(cls, keys: Sequence[tuple[int, str]], sums: NDArray[np.float64], counts: NDArray[np.int64]) -> "LeafSums":
        leaves = np.array([leaf for leaf, _ in keys], dtype=np.int64)
        return cls(leaves, [label for _, label in keys], sums.astype(np.int32), counts.astype(np.int64))

    @property
    def keys(self) -> list[tuple[int, str]]:
        return list(zip(self.leaves.tolist(), self.labels, strict=True))


def combine(added: Iterable[LeafSums], taken: LeafSums | None = None) -> LeafSums:
    """The sums of several parts, less those of records that leave: equal, row by row, to sums that never held these."""
    signed = [(1, part) for part in added] + ([(-1, taken)] if taken is not None else [])
    keys = sorted({key for _, part in signed for key in part.keys})
    place = {key: row for row, key in enumerate(keys)}
    width = signed[0][1].sums.shape[1]
    sums, counts = np.zeros((len(keys), width)), np.zeros(len(keys), dtype=np.int64)
    for sign, part in signed:
        rows = [place[key] for key in part.keys]
        sums[rows] += sign * part.sums.astype(np.float64)
        counts[rows] += sign * part.counts
    kept = counts > 0
    return LeafSums._made([key for key, stays in zip(keys, kept, strict=True) if stays], sums[kept], counts[kept])
