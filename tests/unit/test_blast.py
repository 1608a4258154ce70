"""Blast radius: a deletion changes the clusters that `blast_of` names, and no other."""

from typing import Any

import numpy as np
import pytest
from builders import make_params, make_tree, members_on, slot_names
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmeraser.clusters.assignment import cluster_by_tree, leaf_counts, rule_of
from lmeraser.clusters.files import Member
from lmeraser.clusters.hierarchy import CutRule, Hierarchy
from lmeraser.core.params import Cluster as ClusterParams
from lmeraser.erase.blast import Blast, blast_of, cost_per_subject

SLOTS = slot_names(12)


@st.composite
def deletions(draw: st.DrawFn) -> tuple[Hierarchy, ClusterParams, list[Member], list[Member]]:
    """A tree, cluster params, all members, and those that stay (at least one)."""
    tree = make_tree(draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 12)))
    n_max = draw(st.integers(1, 12))
    params = make_params(
        {
            "cluster.n_max": n_max,
            "cluster.n_min": draw(st.integers(0, n_max)),
            "cluster.max_diversity": draw(st.sampled_from([0.1, 0.5, 1.0])),
        }
    ).cluster
    members = members_on(draw(st.lists(st.integers(0, tree.n_leaves - 1), min_size=2, max_size=60)))
    leaving = draw(st.sets(st.integers(0, len(members) - 1), min_size=1, max_size=len(members) - 1))
    return tree, params, members, [member for index, member in enumerate(members) if index not in leaving]


def clusters(tree: Hierarchy, params: ClusterParams, members: list[Member]) -> dict[str, list[Member]]:
    return {made.slot: made.members for made in cluster_by_tree(members, tree, params, SLOTS)}


def blast(tree: Hierarchy, params: ClusterParams, members: list[Member], left: list[Member]) -> Blast:
    before = leaf_counts(tree, [member.leaf for member in members])
    return blast_of(tree, rule_of(params), SLOTS, before, before - leaf_counts(tree, [member.leaf for member in left]))


@settings(max_examples=100)
@given(deletions())
def test_deletion_changes_only_the_clusters_that_the_blast_names(
    case: tuple[Hierarchy, ClusterParams, list[Member], list[Member]],
) -> None:
    tree, params, members, left = case
    before, after = clusters(tree, params, members), clusters(tree, params, left)
    radius = blast(tree, params, members, left)
    changed = {slot for slot in after if before.get(slot) != after[slot]}
    assert changed <= set(radius.retrained) <= set(after)
    assert radius.emptied == sorted(before.keys() - after.keys())
    assert radius.records_after == len(left)
    assert radius.clusters_after == len(after)
    assert radius.records_retrained == sum(len(after[slot]) for slot in radius.retrained)


@settings(max_examples=40)
@given(deletions())
def test_deletion_that_moves_no_cut_changes_only_the_clusters_of_the_deleted(
    case: tuple[Hierarchy, ClusterParams, list[Member], list[Member]],
) -> None:
    tree, params, members, left = case
    radius = blast(tree, params, members, left)
    if not radius.merged:
        leaving = set(members) - set(left)
        touched = {slot for slot, inside in clusters(tree, params, members).items() if leaving & set(inside)}
        assert touched == {*radius.retrained, *radius.emptied}


def hand_made() -> tuple[Hierarchy, ClusterParams]:
    """Two leaves; a cluster of up to five records."""
    tree = make_tree(0, 2)
    assert tree.n_leaves == 2
    return tree, make_params({"cluster.n_max": 5}).cluster


def test_deletion_within_a_cluster_retrains_that_cluster() -> None:
    tree, params = hand_made()
    members = members_on([0] * 4 + [1] * 4)
    radius = blast(tree, params, members, members[1:])
    assert radius == Blast(["c00"], [], 3, 7, 2, False)


def test_last_record_of_a_cluster_empties_its_slot() -> None:
    tree, params = hand_made()
    members = members_on([0] * 6 + [1])
    radius = blast(tree, params, members, members[:-1])
    assert radius == Blast([], ["c01"], 0, 6, 1, False)


def test_counts_that_cross_the_limit_merge_two_clusters_into_the_left_slot() -> None:
    tree, params = hand_made()
    members = members_on([0] * 3 + [1] * 3)
    radius = blast(tree, params, members, members[1:])
    assert radius == Blast(["c00"], ["c01"], 5, 5, 1, True)


def test_cluster_that_moves_to_another_slot_is_named_though_it_loses_nobody() -> None:
    tree, _ = hand_made()
    params = make_params({"cluster.n_max": 5, "cluster.n_min": 2}).cluster
    members = members_on([0] + [1] * 8)  # the one on the left is too few for a cluster of its own: no split
    assert blast(tree, params, members, members[1:]) == Blast(["c01"], ["c00"], 8, 8, 1, True)


def test_deleting_nothing_changes_nothing() -> None:
    tree, params = hand_made()
    members = members_on([0] * 6 + [1] * 2)
    assert blast(tree, params, members, members) == Blast([], [], 0, 8, 2, False)


def costs_of(leaves: list[int], people: list[int], tree: Hierarchy, rule: CutRule) -> NDArray[np.float64]:
    return cost_per_subject(np.array(leaves), np.array(people), tree, rule, SLOTS)


def one_by_one(leaves: list[int], people: list[int], tree: Hierarchy, rule: CutRule) -> list[list[float]]:
    """The costs by a whole cut for each person."""
    rows = []
    for person in sorted(set(people)):
        gap = leaf_counts(tree, [leaf for leaf, owner in zip(leaves, people, strict=True) if owner == person])
        radius = blast_of(tree, rule, SLOTS, leaf_counts(tree, leaves), gap)
        rows.append([float(len(radius.retrained)), float(radius.records_retrained), float(radius.merged)])
    return rows


def test_cost_of_each_person_is_that_of_erasing_that_person_alone() -> None:
    tree, params = make_tree(3, 6), make_params({"cluster.n_max": 4}).cluster
    leaves = [0, 0, 1, 1, 2, 3, 3, 4, 5, 5, 5]
    members, people = members_on(leaves), [index % 4 for index in range(len(leaves))]
    costs = costs_of(leaves, people, tree, rule_of(params))
    for person, row in enumerate(costs):
        kept = [member for member, owner in zip(members, people, strict=True) if owner != person]
        radius = blast(tree, params, members, kept)
        assert row.tolist() == [len(radius.retrained), radius.records_retrained, radius.merged]
    assert np.array_equal(costs, costs_of(leaves[::-1], people[::-1], tree, rule_of(params)))


@pytest.mark.parametrize("seed", range(80))
def test_cost_of_a_person_is_the_same_by_the_short_way_and_by_the_whole_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree = make_tree(seed, int(rng.integers(1, 13)))
    changes: dict[str, float] = {"cluster.n_max": int(rng.integers(2, 9)), "cluster.n_min": int(rng.integers(0, 3))}
    if seed % 5 == 0:
        changes["cluster.max_diversity"] = 0.6
    rule = rule_of(make_params(changes).cluster)
    leaves = rng.integers(0, tree.n_leaves, 60).tolist()
    most = int(rng.integers(1, 40))  # of few people each has more than eight different leaves
    people = [*range(most), *rng.integers(0, most, len(leaves) - most).tolist()]
    assert costs_of(leaves, people, tree, rule).tolist() == one_by_one(leaves, people, tree, rule)


def test_short_way_is_taken_by_nearly_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    tree, rule = make_tree(0, 12), rule_of(make_params({"cluster.n_max": 200}).cluster)
    leaves, people = rng.integers(0, 12, 3000).tolist(), [index // 3 for index in range(3000)]
    expected = one_by_one(leaves, people, tree, rule)
    whole: list[Blast] = []

    def counted(*given: Any) -> Blast:
        whole.append(blast_of(*given))
        return whole[-1]

    monkeypatch.setattr("lmeraser.erase.blast.blast_of", counted)
    assert costs_of(leaves, people, tree, rule).tolist() == expected
    assert len(whole) < 20


def test_cluster_that_keeps_slot_and_members_is_not_called_retrained() -> None:
    tree, params = hand_made()
    members = members_on([0] * 3 + [1] * 3)
    left = members[:3]  # the right leaf loses its last record: the parent takes slot c00 with the same three members
    assert clusters(tree, params, members)["c00"] == clusters(tree, params, left)["c00"]
    assert blast(tree, params, members, left).retrained == []
