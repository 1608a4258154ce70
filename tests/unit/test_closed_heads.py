"""Cluster heads through the head's solve and its files: wherever the hierarchy is cut, who leaves was never in them."""

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import make_params, whole_numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmeraser.clusters.closed import ClosedHeads
from lmeraser.clusters.discriminant import Chosen
from lmeraser.clusters.files import ClusterSize
from lmeraser.clusters.global_head import GlobalHead, Rule, Sums, load_head, load_sums, save_head, save_sums, solve
from lmeraser.clusters.leaf_sums import LeafSums
from lmeraser.learn.embedding import exact_sums

LEVELS, LEAVES = 127, 6
seeds = st.integers(0, 2**32 - 1)
LABELS = ["one", "two", "three"]


class Crowd:
    """Records of labels on leaves."""

    def __init__(self, seed: int, n: int, p: int = 5) -> None:
        rng = np.random.default_rng(seed)
        self.summands = whole_numbers(rng, n, p, LEVELS)
        self.labels = [LABELS[index] for index in rng.integers(0, len(LABELS), n)]
        self.leaves = rng.integers(0, LEAVES, n)

    def sums(self, rows: NDArray[np.int64]) -> Sums:
        labels = [self.labels[row] for row in rows]
        by_leaf = LeafSums.of(self.summands[rows], self.leaves[rows], labels)
        return replace(exact_sums(self.summands[rows], labels), by_leaf=by_leaf)


def cut(*ends: int) -> list[ClusterSize]:
    """Clusters of neighbouring leaves; each ends before the next. Args: ends: the last is LEAVES."""
    starts = [0, *ends[:-1]]
    return [
        ClusterSize(f"c{index:02d}", index, first, end - 1, 1, 1)
        for index, (first, end) in enumerate(zip(starts, ends, strict=True))
    ]


@functools.cache
def rule(pull: float, priors: str = "records") -> Rule:
    head = make_params({"head.kind": "discriminant", "head.priors": priors}).head
    return Rule(head, LEVELS, np.full(5, 1 / 16), Chosen(0.3, 0.5, 2.0), pull)


def heads_of(head: GlobalHead) -> ClosedHeads:
    assert head.clusters is not None
    return head.clusters


def answers(head: GlobalHead, slot: str, summands: NDArray[np.float64]) -> NDArray[np.float64]:
    assert head.temperature is not None
    return heads_of(head).probabilities(slot, summands, summands @ head.weight.T, head.temperature)


def same(head: GlobalHead, other: GlobalHead) -> bool:
    ours, theirs = heads_of(head), heads_of(other)
    names = ("weight", "cluster", "label", "bias")
    equal = all(getattr(ours, name).tobytes() == getattr(theirs, name).tobytes() for name in names)
    return equal and ours.slots == theirs.slots and head.weight.tobytes() == other.weight.tobytes()


@settings(max_examples=50)
@given(seeds, st.integers(3, 40), st.integers(1, 3), st.sampled_from([1, 3, LEAVES]), st.data())
def test_who_leaves_was_never_in_any_cluster_however_parts_divide_them(
    seed: int, n: int, parts: int, clusters: int, data: st.DataObject
) -> None:
    crowd = Crowd(seed, n)
    leaving = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=n - 1, unique=True)), dtype=np.int64)
    part = np.random.default_rng(seed + 1).integers(0, parts, n)
    kept = np.setdiff1d(np.arange(n), leaving)
    sizes = cut(*np.linspace(0, LEAVES, clusters + 1).astype(int)[1:].tolist())
    everybody = [crowd.sums(np.flatnonzero(part == place)) for place in range(parts)]
    without = solve(everybody, rule(3), sizes, crowd.sums(leaving))
    shuffled = np.random.default_rng(seed + 2).permutation(kept)
    assert same(without, solve([crowd.sums(shuffled)], rule(3), sizes))


def test_leaf_sums_are_those_of_pythons_integers() -> None:
    crowd = Crowd(1, 25)
    sums = crowd.sums(np.arange(25)).by_leaf
    assert sums is not None
    for (leaf, label), row, count in zip(sums.keys, sums.sums.tolist(), sums.counts.tolist(), strict=True):
        inside = [r for r in range(25) if (crowd.leaves[r], crowd.labels[r]) == (leaf, label)]
        assert count == len(inside)
        assert row == [sum(int(crowd.summands[r, axis]) for r in inside) for axis in range(5)]


@given(seeds, st.sampled_from(["records", "even"]))
def test_one_cluster_of_all_is_the_global_head(seed: int, priors: str) -> None:
    """A pull of almost nothing: its means and its shares of labels are then everybody's."""
    crowd = Crowd(seed, 30)
    head = solve([crowd.sums(np.arange(30))], rule(1e-9, priors), cut(LEAVES))
    assert np.allclose(answers(head, "c00", crowd.summands), head.probabilities(crowd.summands), atol=1e-6)


@given(seeds, st.integers(1, 25), st.sampled_from([1e-3, 30.0]))
def test_answers_are_probabilities_also_of_a_cluster_that_nobody_is_in(seed: int, n: int, pull: float) -> None:
    crowd = Crowd(seed, n)
    crowd.leaves = np.minimum(crowd.leaves, 3)
    head = solve([crowd.sums(np.arange(n))], rule(pull), cut(2, 4, LEAVES))
    for slot in ("c00", "c01", "c02"):
        shares = answers(head, slot, whole_numbers(np.random.default_rng(seed), 4, 5, LEVELS))
        assert shares.shape == (4, len(head.labels))
        assert np.allclose(shares.sum(1), 1)
        assert (shares >= 0).all()


def test_a_label_that_a_cluster_knows_otherwise_is_told_by_its_own_mean() -> None:
    """In the second cluster the labels lie the other way round: only a head of its own can tell them."""
    rng = np.random.default_rng(0)
    crowd = Crowd(0, 300)
    code, far = rng.integers(0, 2, 300), rng.integers(0, 2, 300)
    crowd.labels = [LABELS[index] for index in code]
    crowd.leaves = far * 3
    crowd.summands[:, 0] = (40 * np.where(far == 1, -1, 1) * (2 * code - 1) + rng.integers(-20, 21, 300)).clip(-LEVELS, LEVELS)
    head = solve([crowd.sums(np.arange(300))], rule(3, "even"), cut(3, LEAVES))
    right = np.array(crowd.labels)
    for place, slot in enumerate(("c00", "c01")):
        rows = far == place
        guess = np.array(head.labels)[answers(head, slot, crowd.summands[rows]).argmax(1)]
        assert (guess == right[rows]).mean() > 0.9
    assert (np.array(head.labels)[head.probabilities(crowd.summands).argmax(1)] == right).mean() < 0.7


@pytest.mark.parametrize("rows", [0, 1, 20])
def test_sums_and_heads_read_back_as_they_were_written(tmp_path: Path, rows: int) -> None:
    crowd = Crowd(3, 20)
    sums = crowd.sums(np.arange(rows))
    save_sums(tmp_path / "sums", sums, {})
    by_leaf, read_back = sums.by_leaf, load_sums(tmp_path / "sums").by_leaf
    assert by_leaf is not None
    assert read_back is not None
    for name in ("leaves", "labels", "sums", "counts"):
        assert np.array_equal(getattr(read_back, name), getattr(by_leaf, name))
    if rows:
        head = solve([sums], rule(3), cut(3, LEAVES))
        save_head(tmp_path / "head", head)
        assert same(load_head(tmp_path / "head"), head)
