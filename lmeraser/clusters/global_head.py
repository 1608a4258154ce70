"""The global head, solved from exact integer sums: a discriminant over features, or ridge regression over Fourier features.

Taking a record out of the sums equals never having put it in, bit for bit, so the head forgets exactly without any
isolation. Ridge solutions from sufficient statistics: Hoerl and Kennard 1970; features: Rahimi and Recht 2007.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import softmax

from lmeraser.clusters.discriminant import solve_discriminant
from lmeraser.clusters.quantisation import STEPS, Integers
from lmeraser.core.environment import Environment, environment
from lmeraser.core.params import Head, Params
from lmeraser.data.tensors import read_tensors, write_tensors


@dataclass(frozen=True)
class Sums:
    """A part's exact sums (k labels, p summands)."""

    gram: NDArray[np.int32]  # (p, p)
    by_label: NDArray[np.int32]  # (k, p)
    counts: NDArray[np.int64]  # (k,) records
    labels: list[str]

    @property
    def records(self) -> int:
        return int(self.counts.sum())


@dataclass(frozen=True)
class GlobalHead:
    """A solved head (k labels, p summands).

    Attributes:
        weight: (k, p) float64 over whole-number summands; bias: (k,); labels: sorted.
        levels: of a summand; temperature: of the softmax of the scores; None: scores are regressed indicators.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    labels: list[str]
    levels: int
    temperature: float | None = None

    def probabilities(self, summands: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, p) to (n, k): a calibrated softmax, or the regressed indicator, clipped at zero and normalised."""
        scores = summands @ self.weight.T + self.bias
        if self.temperature is not None:
            shares: NDArray[np.float64] = softmax(scores / self.temperature, axis=1)
            return shares
        scores = np.maximum(scores, 0)
        total = scores.sum(1, keepdims=True)
        return np.where(total > 0, scores / np.where(total > 0, total, 1), 1 / len(self.labels))


def total(parts: Sequence[Sums]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], list[str]]:
    """The parts' sums in one: Gram matrix, by label, counts, labels. Whole numbers: any order gives the same."""
    gram = np.zeros(parts[0].gram.shape, dtype=np.int64)
    for part in parts:
        gram += part.gram
    labels = sorted({label for part in parts for label in part.labels})
    by_label = np.zeros((len(labels), len(gram)), dtype=np.int64)
    counts = np.zeros(len(labels), dtype=np.int64)
    for part in parts:
        rows = [labels.index(label) for label in part.labels]
        by_label[rows] += part.by_label
        counts[rows] += part.counts
    return gram.astype(np.float64), by_label.astype(np.float64), counts.astype(np.float64), labels


@dataclass(frozen=True)
class Rule:
    """How sums are solved: all that is neither private nor summed.

    Attributes:
        head, levels: as the params say; unit: (p,) a summand's level in units of a standardised feature, or empty: 1.
        shrinkage, temperature: of a discriminant, as the params say or chosen on public records.
    """

    head: Head
    levels: int
    unit: NDArray[np.float64]
    shrinkage: float
    temperature: float


def rule_of(params: Params, step: Integers, shrinkage: float, temperature: float) -> Rule:
    """Args: step, shrinkage, temperature: the skeleton's."""
    return Rule(params.head, params.projection.levels, step / STEPS, shrinkage, temperature)


def load_rule(skeleton: Path, params: Params) -> Rule:
    """From the skeleton's file alone."""
    tensors, note = read_tensors(skeleton)
    return rule_of(params, tensors["step"], note["shrinkage"], note["temperature"])


def solve(parts: Sequence[Sums], rule: Rule) -> GlobalHead:
    """Add the parts and solve once: the discriminant, or (G + ridge n levels² I) w = B, ridge being a share of the records."""
    gram, by_label, counts, labels = total(parts)
    if rule.head.kind == "discriminant":
        unit = rule.unit if len(rule.unit) else np.ones(len(gram))
        weight, bias = solve_discriminant(gram, by_label, counts, unit, rule.shrinkage, rule.head.priors)
        return GlobalHead(weight, bias, labels, rule.levels, rule.temperature)
    gram[np.diag_indices(len(gram))] += rule.head.ridge * counts.sum() * rule.levels**2
    weight = cho_solve(cho_factor(gram, overwrite_a=True), by_label.T).T
    return GlobalHead(weight, np.zeros(len(labels)), labels, rule.levels)


def subtract(parts: Sequence[Sums], leaving: Sums, labels: Sequence[str]) -> list[Sums]:
    """The parts without some records: exact, so equal to sums that never held them.

    Args: leaving: the sums of the records that leave; labels: those that a record still has afterwards.
    """

    def kept(sums: Sums, sign: int) -> Sums:
        rows = [row for row, label in enumerate(sums.labels) if label in labels]
        gram = sums.gram if sign > 0 else -sums.gram
        return Sums(gram, sign * sums.by_label[rows], sign * sums.counts[rows], [sums.labels[row] for row in rows])

    return [*(kept(part, 1) for part in parts), kept(leaving, -1)]


def _pack(gram: NDArray[np.int32]) -> NDArray[np.int32]:
    return gram[np.triu_indices(len(gram))]


def _unpack(packed: NDArray[np.int32], size: int) -> NDArray[np.int32]:
    gram = np.zeros((size, size), dtype=np.int32)
    gram[np.triu_indices(size)] = packed
    return gram + np.triu(gram, 1).T


def save_sums(path: Path, sums: Sums, made_in: Environment) -> None:
    """Args: made_in: what gave the features that were summed."""
    note = {"labels": sums.labels, "records": sums.records, "environment": made_in}
    write_tensors(path, {"gram": _pack(sums.gram), "by_label": sums.by_label, "counts": sums.counts}, note)


def load_sums(path: Path) -> Sums:
    tensors, note = read_tensors(path)
    by_label = tensors["by_label"]
    return Sums(_unpack(tensors["gram"], by_label.shape[1]), by_label, tensors["counts"], note["labels"])


def save_head(path: Path, head: GlobalHead) -> None:
    """The environment beside it is numpy's alone, whoever solves: the sums are whole numbers, and no network has a part."""
    note = {"labels": head.labels, "levels": head.levels, "temperature": head.temperature, "environment": environment()}
    write_tensors(path, {"weight": head.weight, "bias": head.bias}, note)


def load_head(path: Path) -> GlobalHead:
    tensors, note = read_tensors(path)
    return GlobalHead(tensors["weight"], tensors["bias"], note["labels"], note["levels"], note["temperature"])
