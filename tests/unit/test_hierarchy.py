"""The hierarchy is grown from public units alone; its cut covers all private records and is a function of counts alone."""

import random

import numpy as np
import pytest
from builders import make_params, make_tree, members_on, refused, slot_names, whole_numbers
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.clusters.assignment import cluster_by_tree, leaf_counts, slot_of
from lmeraser.clusters.hierarchy import CutRule, Hierarchy, cut, diversity, grow
from lmeraser.core.errors import SlotError

seeds = st.integers(0, 2**32 - 1)
leaf_numbers = st.integers(1, 12)


@st.composite
def trees(draw: st.DrawFn) -> Hierarchy:
    return make_tree(draw(seeds), draw(leaf_numbers), units=draw(st.integers(1, 60)), dim=draw(st.integers(1, 4)))


@st.composite
def rules(draw: st.DrawFn) -> CutRule:
    n_max = draw(st.integers(1, 12))
    return CutRule(n_max, draw(st.integers(0, n_max)), draw(st.sampled_from([0.05, 0.3, 0.7, 1.0])))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Hierarchy, np.ndarray, CutRule]:
    tree = draw(trees())
    counts = draw(st.lists(st.integers(0, 9), min_size=tree.n_leaves, max_size=tree.n_leaves))
    return tree, np.array(counts, dtype=np.int64), draw(rules())


def leaves_of(tree: Hierarchy, node: int) -> range:
    return range(int(tree.first_leaf[node]), int(tree.last_leaf[node]) + 1)


def count_under(tree: Hierarchy, node: int, counts: np.ndarray) -> int:
    return int(sum(counts[leaf] for leaf in leaves_of(tree, node)))


@given(trees())
def test_leaves_are_numbered_from_the_left_and_children_divide_their_parent(tree: Hierarchy) -> None:
    own = [node for node in range(len(tree.right)) if tree.is_leaf(node)]
    assert [int(tree.first_leaf[node]) for node in own] == list(range(tree.n_leaves))
    assert leaves_of(tree, 0) == range(tree.n_leaves)
    for node in range(len(tree.right)):
        if not tree.is_leaf(node):
            left, right = node + 1, int(tree.right[node])
            assert [*leaves_of(tree, left), *leaves_of(tree, right)] == [*leaves_of(tree, node)]


@given(seeds, leaf_numbers, st.integers(1, 50), st.integers(1, 4))
def test_every_public_unit_routes_to_a_leaf_whose_centroid_is_the_mean_of_its_units(
    seed: int, leaves: int, n: int, dim: int
) -> None:
    units = whole_numbers(np.random.default_rng(seed), n, dim, 20)
    tree = grow(units, leaves)
    routed = tree.route(units)
    assert tree.n_leaves <= min(leaves, n)
    assert set(routed.tolist()) == set(range(tree.n_leaves))  # no public leaf is empty
    for node in range(len(tree.right)):
        inside = units[(routed >= tree.first_leaf[node]) & (routed <= tree.last_leaf[node])]
        assert np.array_equal(tree.centroid[node], np.rint(inside.mean(0)))


@given(trees(), seeds, st.integers(1, 30))
def test_leaf_of_a_unit_does_not_depend_on_its_neighbours(tree: Hierarchy, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    units = whole_numbers(rng, n, tree.axis.shape[1])
    together, order = tree.route(units), rng.permutation(n)
    assert np.array_equal(tree.route(units[order]), together[order])
    assert [int(tree.route(units[row : row + 1])[0]) for row in range(n)] == together.tolist()
    assert ((together >= 0) & (together < tree.n_leaves)).all()


@given(seeds, leaf_numbers)
def test_growing_twice_gives_the_same_tree(seed: int, leaves: int) -> None:
    first, other = make_tree(seed, leaves), make_tree(seed, leaves)
    assert all(np.array_equal(getattr(first, name), getattr(other, name)) for name in vars(first))


def test_units_that_are_alike_are_one_leaf() -> None:
    tree = grow(np.full((20, 3), 7.0), 8)
    assert tree.n_leaves == 1
    assert tree.route(np.zeros((3, 3))).tolist() == [0, 0, 0]


def test_halves_of_distinct_units_are_of_about_the_same_size() -> None:
    units = whole_numbers(np.random.default_rng(0), 400, 3)
    sizes = np.bincount(grow(units, 8).route(units))
    assert sizes.max() <= 2 * sizes.min()


@given(cases())
def test_cut_covers_every_leaf_that_holds_records_once(case: tuple[Hierarchy, np.ndarray, CutRule]) -> None:
    tree, counts, rule = case
    covered = [leaf for node in cut(tree, counts, rule) for leaf in leaves_of(tree, node)]
    assert covered == sorted(set(covered))  # from left to right, no overlap
    assert set(np.flatnonzero(counts)) <= set(covered)
    assert all(count_under(tree, node, counts) for node in cut(tree, counts, rule))


@given(cases())
def test_cluster_above_n_max_cannot_be_split(case: tuple[Hierarchy, np.ndarray, CutRule]) -> None:
    tree, counts, rule = case
    for node in cut(tree, counts, rule):
        if count_under(tree, node, counts) > rule.n_max and not tree.is_leaf(node):
            halves = [count_under(tree, half, counts) for half in (node + 1, int(tree.right[node]))]
            assert any(0 < half < rule.n_min for half in halves)


@given(cases())
def test_no_split_leaves_a_cluster_of_fewer_than_n_min(case: tuple[Hierarchy, np.ndarray, CutRule]) -> None:
    tree, counts, rule = case
    nodes = cut(tree, counts, rule)
    assert len(nodes) <= 1 or all(count_under(tree, node, counts) >= rule.n_min for node in nodes)


@given(cases())
def test_cluster_that_could_stay_whole_is_not_split(case: tuple[Hierarchy, np.ndarray, CutRule]) -> None:
    tree, counts, rule = case
    by_count = CutRule(rule.n_max, 0, 1.0)
    nodes = set(cut(tree, counts, by_count))
    for node in range(len(tree.right)):
        if not tree.is_leaf(node) and {node + 1, int(tree.right[node])} & nodes:
            assert count_under(tree, node, counts) > rule.n_max


@given(cases(), st.randoms(use_true_random=False))
def test_cut_forgets_the_order_of_deletions(case: tuple[Hierarchy, np.ndarray, CutRule], rng: random.Random) -> None:
    tree, counts, rule = case
    records = [leaf for leaf, count in enumerate(counts) for _ in range(count)]
    rng.shuffle(records)
    kept = records[len(records) // 2 :]
    for leaf in records[: len(records) // 2]:
        counts[leaf] -= 1
        nodes = cut(tree, counts, rule)
        assert nodes == cut(tree, counts.copy(), rule)
    assert cut(tree, counts, rule) == cut(tree, leaf_counts(tree, kept), rule)


@given(cases())
def test_slots_of_a_cut_are_distinct_and_the_leftmost_leafs(case: tuple[Hierarchy, np.ndarray, CutRule]) -> None:
    tree, counts, rule = case
    names = [slot_of(tree, node, slot_names(tree.n_leaves)) for node in cut(tree, counts, rule)]
    assert len(set(names)) == len(names)
    assert names == [f"c{int(tree.first_leaf[node]):02d}" for node in cut(tree, counts, rule)]


@given(cases())
def test_diversity_is_no_less_than_zero_and_zero_for_a_single_leaf(case: tuple[Hierarchy, np.ndarray, CutRule]) -> None:
    tree, counts, _ = case
    for node in range(len(tree.right)):
        spread = diversity(tree, node, counts)
        assert spread >= 0
        if tree.is_leaf(node) or np.count_nonzero(counts[list(leaves_of(tree, node))]) < 2:
            assert spread == 0


def test_diversity_of_evenly_filled_leaves_is_the_public_one() -> None:
    tree = make_tree(1, 8)
    assert diversity(tree, 0, np.full(8, 3)) == pytest.approx(1.0)


def test_diverse_node_is_split_though_it_is_small() -> None:
    tree = make_tree(1, 8)
    counts = np.full(8, 1)
    assert cut(tree, counts, CutRule(100, 0, 1.0)) == [0]
    assert len(cut(tree, counts, CutRule(100, 0, 0.2))) > 1


@given(cases(), st.randoms(use_true_random=False))
def test_clusters_do_not_depend_on_the_order_of_records(case: tuple[Hierarchy, np.ndarray, CutRule], rng: random.Random) -> None:
    tree, counts, _ = case
    members = members_on([leaf for leaf, count in enumerate(counts) for _ in range(count)])
    params, slots = make_params({"cluster.n_max": 5}).cluster, slot_names(12)
    expected = [(made.slot, made.node, made.members) for made in cluster_by_tree(members, tree, params, slots)]
    rng.shuffle(members)
    assert [(made.slot, made.node, made.members) for made in cluster_by_tree(members, tree, params, slots)] == expected
    assert sorted(member for _, _, inside in expected for member in inside) == sorted(members)


def test_too_few_slots_are_refused_with_the_number_that_is_needed() -> None:
    tree = make_tree(1, 8)
    params = make_params({"cluster.n_max": 1}).cluster
    message = refused(SlotError, lambda: cluster_by_tree(members_on([0, 7, 7]), tree, params, slot_names(4)))
    assert "slots lists 4, but 8 are needed" in message
