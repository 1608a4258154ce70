"""Cluster heads in closed form: sums by leaf forget exactly, and a head stands between its own means and those of all."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmeraser.clusters.closed import ClosedHeads, solve_clusters
from lmeraser.clusters.discriminant import Discriminant, log_priors
from lmeraser.clusters.files import ClusterSize
from lmeraser.clusters.leaf_sums import LeafSums, combine
from lmeraser.clusters.quantisation import Integers

LABELS, LEAVES, DIM = ("ant", "bee", "cat"), 4, 5
CLUSTERS = [ClusterSize("c00", 1, 0, 1, 0, 0), ClusterSize("c02", 2, 2, 3, 0, 0)]
Records = tuple[Integers, NDArray[np.int64], list[str]]


@st.composite
def record_sets(draw: st.DrawFn) -> Records:
    """Whole-number summands, a leaf and a label for each of some records; every label is there twice."""
    count = draw(st.integers(2 * len(LABELS), 24))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = [*LABELS, *LABELS, *generator.choice(LABELS, count - 2 * len(LABELS)).tolist()]
    return generator.integers(-127, 128, (count, DIM)).astype(float), generator.integers(0, LEAVES, count), labels


def sums_of(records: Records, rows: NDArray[np.int64]) -> LeafSums:
    summands, leaves, labels = records
    return LeafSums.of(summands[rows], leaves[rows], [labels[row] for row in rows])


def same(left: LeafSums, right: LeafSums) -> bool:
    arrays = all(getattr(left, name).tobytes() == getattr(right, name).tobytes() for name in ("leaves", "sums", "counts"))
    return arrays and left.labels == right.labels


def shared_of(records: Records) -> Discriminant:
    summands, _, labels = records
    member = np.array([[name == label for name in LABELS] for label in labels], dtype=float)
    return Discriminant.of(summands.T @ summands, member.T @ summands, member.sum(0), np.full(DIM, 0.25), 0.2, 0.5)


def heads_of(records: Records, pull: float) -> tuple[ClosedHeads, Discriminant]:
    shared = shared_of(records)
    everybody = sums_of(records, np.arange(len(records[2])))
    return solve_clusters(everybody, CLUSTERS, LABELS, shared, pull, "records"), shared


@given(record_sets(), st.data())
def test_sums_of_parts_less_who_leaves_are_those_that_never_held_them(records: Records, data: st.DataObject) -> None:
    count = len(records[2])
    part = np.array(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    leaves = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    if not leaves.any() or leaves.all():
        return
    parts = [sums_of(records, np.flatnonzero(part == number)) for number in (2, 0, 1)]
    left = combine(parts, sums_of(records, np.flatnonzero(leaves)))
    assert same(left, combine([sums_of(records, np.flatnonzero(~leaves))]))
    assert left.counts.all()


@settings(max_examples=25)
@given(record_sets())
def test_cluster_that_is_pulled_without_end_answers_as_the_global_head(records: Records) -> None:
    heads, shared = heads_of(records, 1e12)
    weight, bias = shared.scores()
    scores = records[0] @ weight.T
    whole = np.exp(scores + bias + log_priors(shared.counts, "records"))
    for slot in heads.slots:
        answers = heads.probabilities(slot, records[0], scores, 1.0)
        assert np.allclose(answers, whole / whole.sum(1, keepdims=True), atol=1e-6)


@settings(max_examples=25)
@given(record_sets(), st.floats(0.5, 50))
def test_answers_of_a_cluster_are_probabilities_of_every_label(records: Records, pull: float) -> None:
    heads, shared = heads_of(records, pull)
    scores = records[0] @ shared.scores()[0].T
    for slot in heads.slots:
        answers = heads.probabilities(slot, records[0], scores, 2.0)
        assert np.allclose(answers.sum(1), 1)
        assert (answers > 0).all()  # a label that the cluster lacks keeps the global mean and a share of the prior


@settings(max_examples=25)
@given(record_sets())
def test_record_of_one_cluster_moves_no_mean_of_another(records: Records) -> None:
    """Its covariance is everybody's; its means are its own and the global ones."""
    summands, leaves, labels = records
    shared = shared_of(records)
    inside = np.flatnonzero(leaves < 2)
    if not len(inside):
        return
    moved = summands.copy()
    moved[inside[0]] *= -1
    first, second = (
        solve_clusters(LeafSums.of(rows, leaves, labels), CLUSTERS, LABELS, shared, 3.0, "records") for rows in (summands, moved)
    )
    other = first.cluster == 1
    assert np.array_equal(first.weight[other], second.weight[second.cluster == 1])
