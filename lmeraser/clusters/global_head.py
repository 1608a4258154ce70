"""The global head: ridge regression on random Fourier features, solved from exact integer sums.

Taking a record out of the sums equals never having put it in, bit for bit, so the head forgets exactly without any
isolation. Ridge solutions from sufficient statistics: Hoerl and Kennard 1970; features: Rahimi and Recht 2007.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from lmeraser.core.environment import Environment, environment
from lmeraser.data.tensors import read_tensors, write_tensors


@dataclass(frozen=True)
class Sums:
    """A part's exact sums (k labels, p features)."""

    gram: NDArray[np.int32]  # (p, p)
    by_label: NDArray[np.int32]  # (k, p)
    labels: list[str]
    records: int


@dataclass(frozen=True)
class GlobalHead:
    """Attributes: weight: (k, p) float64 over whole-number Fourier features; labels: sorted."""

    weight: NDArray[np.float64]
    labels: list[str]
    levels: int

    def probabilities(self, fourier: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, p) to (n, k): the regressed indicator, clipped at zero and normalised."""
        scores = np.maximum(fourier @ self.weight.T, 0)
        total = scores.sum(1, keepdims=True)
        return np.where(total > 0, scores / np.where(total > 0, total, 1), 1 / len(self.labels))


def solve(parts: Sequence[Sums], ridge: float, levels: int) -> GlobalHead:
    """Add the parts (whole numbers: any order) and solve (G + ridge n levels² I) w = B once.

    Args: ridge: penalty as a share of the records, in units of a feature's greatest square.
    """
    gram = np.sum([part.gram.astype(np.int64) for part in parts], axis=0)
    records = sum(part.records for part in parts)
    labels = sorted({label for part in parts for label in part.labels})
    by_label = np.zeros((len(labels), gram.shape[0]), dtype=np.int64)
    for part in parts:
        for row, label in zip(part.by_label, part.labels, strict=True):
            by_label[labels.index(label)] += row
    penalty = ridge * records * levels**2
    factor = cho_factor(gram.astype(np.float64) + penalty * np.eye(len(gram)))
    return GlobalHead(cho_solve(factor, by_label.T.astype(np.float64)).T, labels, levels)


def subtract(parts: Sequence[Sums], leaving: Sums, labels: Sequence[str]) -> list[Sums]:
    """The parts without some records: exact, so equal to sums that never held them.

    Args: leaving: the sums of the records that leave; labels: those that a record still has afterwards.
    """
    rows = [(row, label) for row, label in zip(-leaving.by_label, leaving.labels, strict=True) if label in labels]
    by_label = np.array([row for row, _ in rows]).reshape(len(rows), leaving.by_label.shape[1])
    left = []
    for part in parts:
        kept = [index for index, label in enumerate(part.labels) if label in labels]
        left.append(Sums(part.gram, part.by_label[kept], [part.labels[index] for index in kept], part.records))
    return [*left, Sums(-leaving.gram, by_label, [label for _, label in rows], -leaving.records)]


def _pack(gram: NDArray[np.int32]) -> NDArray[np.int32]:
    return gram[np.triu_indices(len(gram))]


def _unpack(packed: NDArray[np.int32], size: int) -> NDArray[np.int32]:
    gram = np.zeros((size, size), dtype=np.int32)
    gram[np.triu_indices(size)] = packed
    return gram + np.triu(gram, 1).T


def save_sums(path: Path, sums: Sums, made_in: Environment) -> None:
    """Args: made_in: what gave the features that were summed."""
    note = {"labels": sums.labels, "records": sums.records, "environment": made_in}
    write_tensors(path, {"gram": _pack(sums.gram), "by_label": sums.by_label}, note)


def load_sums(path: Path) -> Sums:
    tensors, note = read_tensors(path)
    by_label = tensors["by_label"]
    return Sums(_unpack(tensors["gram"], by_label.shape[1]), by_label, note["labels"], note["records"])


def save_head(path: Path, head: GlobalHead) -> None:
    """The environment beside it is numpy's alone, whoever solves: the sums are whole numbers, and no network has a part."""
    note = {"labels": head.labels, "levels": head.levels, "environment": environment()}
    write_tensors(path, {"weight": head.weight}, note)


def load_head(path: Path) -> GlobalHead:
    tensors, note = read_tensors(path)
    return GlobalHead(tensors["weight"], note["labels"], note["levels"])
