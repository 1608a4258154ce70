"""The global head, solved from exact integer sums: a discriminant over features, or ridge regression over Fourier features.

Taking a record out of the sums equals never having put it in, bit for bit, so the head forgets exactly without any
isolation. Ridge solutions from sufficient statistics: Hoerl and Kennard 1970; features: Rahimi and Recht 2007.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import softmax

from lmeraser.clusters.closed import ClosedHeads, solve_clusters
from lmeraser.clusters.discriminant import Chosen, Discriminant, growth_of, log_priors
from lmeraser.clusters.leaf_sums import LeafSums, combine
from lmeraser.clusters.quantisation import STEPS, Integers
from lmeraser.core.environment import Environment, environment
from lmeraser.core.params import Head, Params
from lmeraser.data.tensors import read_tensors, write_tensors

if TYPE_CHECKING:
    from lmeraser.clusters.files import ClusterSize

TILE = 512  # rows of a Gram matrix that are mirrored together


@dataclass(frozen=True)
class Sums:
    """A part's exact sums (k labels, p summands)."""

    packed: NDArray[np.int32]  # (p (p + 1) / 2,) the Gram matrix's upper triangle: whole numbers are added as well in half of it
    by_label: NDArray[np.int32]  # (k, p)
    counts: NDArray[np.int64]  # (k,) records
    labels: list[str]
    by_leaf: LeafSums | None = None  # where clusters are solved in closed form

    @property
    def records(self) -> int:
        return int(self.counts.sum())

    @property
    def gram(self) -> NDArray[np.int32]:
        """(p, p), made each time."""
        return unpack(self.packed)


@dataclass(frozen=True)
class GlobalHead:
    """A solved head (k labels, p summands).

    Attributes:
        weight: (k, p) float64 over whole-number summands; bias: (k,); labels: sorted.
        levels: of a summand; temperature: of the softmax of the scores; None: scores are regressed indicators.
        clusters: heads in closed form, where the params ask for them.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    labels: list[str]
    levels: int
    temperature: float | None = None
    clusters: ClosedHeads | None = None

    def scores(self, summands: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, p) to (n, k)."""
        scores: NDArray[np.float64] = summands @ self.weight.T + self.bias
        return scores

    def probabilities(self, summands: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, p) to (n, k): a calibrated softmax, or the regressed indicator, clipped at zero and normalised."""
        scores = self.scores(summands)
        if self.temperature is not None:
            shares: NDArray[np.float64] = softmax(scores / self.temperature, axis=1)
            return shares
        scores = np.maximum(scores, 0)
        total = scores.sum(1, keepdims=True)
        return np.where(total > 0, scores / np.where(total > 0, total, 1), 1 / len(self.labels))


@dataclass(frozen=True)
class Total:
    """All parts in one (k labels that are left, sorted; p summands): whole numbers, in float64 for BLAS."""

    packed: NDArray[np.float64]  # (p (p + 1) / 2,) the Gram matrix's upper triangle
    by_label: NDArray[np.float64]  # (k, p)
    counts: NDArray[np.float64]  # (k,), none zero
    labels: list[str]
    by_leaf: LeafSums | None

    @property
    def gram(self) -> NDArray[np.float64]:
        """(p, p), made each time: the caller may write into it."""
        return unpack(self.packed)


def total(parts: Iterable[Sums], leaving: Sums | None = None) -> Total:
    """Add parts, one after the other in memory, and take out what leaves.

    Whole numbers below 2^53: any order gives the same bits, and so does never having added what leaves.
    """
    packed, counts, by_leaf = np.zeros(0), Counter[str](), list[LeafSums]()
    by_label: dict[str, NDArray[np.float64]] = {}
    for part, sign in chain(((part, 1) for part in parts), ((part, -1) for part in [leaving] if part)):
        packed = packed if len(packed) else np.zeros(part.packed.shape)
        (np.add if sign > 0 else np.subtract)(packed, part.packed, out=packed)
        for label, row, count in zip(part.labels, part.by_label, part.counts.tolist(), strict=True):
            by_label[label] = by_label.get(label, np.zeros(len(row))) + sign * row
            counts[label] += sign * count
        if part.by_leaf is not None and sign > 0:
            by_leaf.append(part.by_leaf)
    labels = sorted(label for label, count in counts.items() if count)
    rows = np.array([by_label[label] for label in labels])
    leaves = combine(by_leaf, leaving.by_leaf if leaving else None) if by_leaf else None
    return Total(packed, rows, np.array([counts[label] for label in labels], dtype=np.float64), labels, leaves)


@dataclass(frozen=True)
class Rule:
    """How sums are solved: all that is neither private nor summed.

    Attributes:
        head, levels: as the params say; unit: (p,) a summand's level in units of a standardised feature, or empty: 1.
        chosen: of a discriminant, as the params say or chosen on public records.
        pull: of clusters in closed form; None: there are none.
    """

    head: Head
    levels: int
    unit: NDArray[np.float64]
    chosen: Chosen
    pull: float | None


def rule_of(params: Params, step: Integers, chosen: Chosen) -> Rule:
    """Args: step, chosen: the skeleton's."""
    pull = params.tune.pull if params.tune.kind == "closed" else None
    return Rule(params.head, params.projection.levels, step / STEPS, chosen, pull)


def load_rule(skeleton: Path, params: Params) -> Rule:
    """From the skeleton's file alone."""
    tensors, note = read_tensors(skeleton)
    return rule_of(params, tensors["step"], Chosen._make(note[name] for name in Chosen._fields))


def solve(parts: Iterable[Sums], rule: Rule, clusters: Sequence["ClusterSize"] = (), leaving: Sums | None = None) -> GlobalHead:
    """Add the parts and solve once: the discriminant, or (G + ridge n levels² I) w = B, ridge being a share of the records.

    Args:
        clusters: to be solved in closed form as well, if the rule says so.
        leaving: the sums of records that leave: what is left equals, bit for bit, sums that never held them.
    """
    sums = total(parts, leaving)
    if rule.pull is not None:
        return _solve(sums, rule, clusters)
    # A request's head is solved when it is accepted, and from the same sums again when its people are out of the parts.
    made_of = _digest(sums, rule)
    if made_of not in _SOLVED:
        solved = _solve(sums, rule, clusters)
        _SOLVED.clear()
        _SOLVED[made_of] = solved
    return _SOLVED[made_of]


_SOLVED: dict[bytes, GlobalHead] = {}  # one, by what it was solved from


def _digest(sums: Total, rule: Rule) -> bytes:
    """Of all that decides a head which has no clusters."""
    digest = hashlib.sha256(repr((rule.head, rule.levels, rule.chosen, sums.labels, sums.packed.shape)).encode())
    for values in (rule.unit, sums.counts, sums.by_label, sums.packed):
        digest.update(np.ascontiguousarray(values).data)
    return digest.digest()


def _solve(sums: Total, rule: Rule, clusters: Sequence["ClusterSize"]) -> GlobalHead:
    head, gram = rule.head, sums.gram
    if head.kind == "discriminant":
        unit = rule.unit if len(rule.unit) else np.ones(len(gram))
        shared = Discriminant.of(gram, sums.by_label, sums.counts, unit, *rule.chosen[:2])
        weight, bias = shared.scores()
        bias += log_priors(sums.counts, head.priors)
        heads = None
        if rule.pull is not None and sums.by_leaf is not None:
            heads = solve_clusters(sums.by_leaf, clusters, sums.labels, shared, rule.pull, head.priors)
        temperature = rule.chosen.temperature * growth_of(shared.distances)
        return GlobalHead(weight, bias, sums.labels, rule.levels, temperature, heads)
    gram[np.diag_indices(len(gram))] += head.ridge * sums.counts.sum() * rule.levels**2
    # Transposed, it is the same matrix in the order that LAPACK takes without a copy.
    weight = cho_solve(cho_factor(gram.T, overwrite_a=True), sums.by_label.T).T
    return GlobalHead(weight, np.zeros(len(sums.labels)), sums.labels, rule.levels)


def pack(gram: NDArray[Any]) -> NDArray[Any]:
    """(p, p) symmetric to its upper triangle, row by row; ten times as fast as by indices."""
    return np.concatenate([gram[:0].ravel(), *(row[place:] for place, row in enumerate(gram))])


def unpack(packed: NDArray[Any]) -> NDArray[Any]:
    size, start = (math.isqrt(8 * len(packed) + 1) - 1) // 2, 0
    gram = np.zeros((size, size), dtype=packed.dtype)
    for place in range(size):
        gram[place, place:] = packed[start : start + size - place]
        start += size - place
    for first in range(0, size, TILE):  # mirrored in tiles that the processor's cache holds
        rows = slice(first, first + TILE)
        gram[rows, rows] += np.triu(gram[rows, rows], 1).T
        for behind in range(first + TILE, size, TILE):
            gram[behind : behind + TILE, rows] = gram[rows, behind : behind + TILE].T
    return gram


def save_sums(path: Path, sums: Sums, made_in: Environment) -> None:
    """Args: made_in: what gave the features that were summed."""
    tensors: dict[str, NDArray[Any]] = {"gram": sums.packed, "by_label": sums.by_label, "counts": sums.counts}
    note = {"labels": sums.labels, "records": sums.records, "environment": made_in}
    if sums.by_leaf is not None:
        tensors |= {f"leaf.{name}": getattr(sums.by_leaf, name) for name in ("leaves", "sums", "counts")}
        note["leaf_labels"] = sums.by_leaf.labels
    write_tensors(path, tensors, note)


def load_sums(path: Path) -> Sums:
    tensors, note = read_tensors(path)
    by_label, by_leaf = tensors["by_label"], None
    if "leaf.sums" in tensors:
        by_leaf = LeafSums(tensors["leaf.leaves"], note["leaf_labels"], tensors["leaf.sums"], tensors["leaf.counts"])
    return Sums(tensors["gram"], by_label, tensors["counts"], note["labels"], by_leaf)


CLOSED = ("weight", "cluster", "label", "bias")


def save_head(path: Path, head: GlobalHead) -> None:
    """The environment beside it is numpy's alone, whoever solves: the sums are whole numbers, and no network has a part."""
    tensors: dict[str, NDArray[Any]] = {"weight": head.weight, "bias": head.bias}
    note = {"labels": head.labels, "levels": head.levels, "temperature": head.temperature, "environment": environment()}
    if head.clusters is not None:
        tensors |= {f"clusters.{name}": getattr(head.clusters, name) for name in CLOSED}
        note["slots"] = head.clusters.slots
    write_tensors(path, tensors, note)


def load_head(path: Path) -> GlobalHead:
    tensors, note = read_tensors(path)
    closed = ClosedHeads(note["slots"], *(tensors[f"clusters.{name}"] for name in CLOSED)) if "slots" in note else None
    return GlobalHead(tensors["weight"], tensors["bias"], note["labels"], note["levels"], note["temperature"], closed)
