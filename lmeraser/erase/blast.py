"""Blast radius: which clusters a deletion changes, from leaf counts alone. Pure, and needs neither torch nor a feature."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmeraser.clusters.assignment import leaf_counts, slot_of
from lmeraser.clusters.files import Member
from lmeraser.clusters.hierarchy import CutRule, Hierarchy, cut, is_split, records_by_node


@dataclass(frozen=True)
class Blast:
    """Args:
    retrained: slots whose cluster changes and holds records afterwards.
    emptied: slots that held a cluster and hold none afterwards (merged or left without records).
    records_retrained: records in the retrained clusters, afterwards.
    clusters_after: non-empty clusters afterwards.
    """

    retrained: list[str]
    emptied: list[str]
    records_retrained: int
    records_after: int
    clusters_after: int
    merged: bool  # whether the cut itself changed


def blast_of(
    tree: Hierarchy, rule: CutRule, slots: Sequence[str], counts: NDArray[np.int64], removed: NDArray[np.int64]
) -> Blast:
    """What changes when records leave.

    Args:
        counts: (leaves,) private training records per leaf before; removed: (leaves,) how many leave.
    """
    after = counts - removed
    old, new = cut(tree, counts, rule), cut(tree, after, rule)

    def content(node: int, where: NDArray[np.int64]) -> dict[int, int]:
        inside = range(int(tree.first_leaf[node]), int(tree.last_leaf[node]) + 1)
        return {leaf: int(where[leaf]) for leaf in inside if where[leaf]}

    # A cluster is its slot and its records: a parent that takes over its left half's slot and records alone is no change.
    before = {slot_of(tree, node, slots): content(node, counts) for node in old}
    changed = [node for node in new if before.get(slot_of(tree, node, slots)) != content(node, after)]
    kept = {slot_of(tree, node, slots) for node in new}
    return Blast(
        retrained=[slot_of(tree, node, slots) for node in changed],
        emptied=sorted({slot_of(tree, node, slots) for node in old} - kept),
        records_retrained=sum(sum(content(node, after).values()) for node in changed),
        records_after=int(after.sum()),
        clusters_after=len(new),
        merged=any(node not in old for node in new),
    )


class _Paths:
    """Finds in a few steps what a small gap costs where it leaves the cut as it is, which is nearly always.

    Whether a node is split depends on what it and its halves hold, so only the nodes above the gap need a look. Trees of hundreds
    of clusters have paths of ten nodes, and there are as many gaps as people.
    """

    def __init__(self, tree: Hierarchy, rule: CutRule, counts: NDArray[np.int64]) -> None:
        self.tree, self.rule = tree, rule
        self.records = records_by_node(tree, counts)
        self.home = np.full(tree.n_leaves, -1, dtype=np.int64)  # the cluster of each leaf
        for node in cut(tree, counts, rule):
            self.home[tree.first_leaf[node] : tree.last_leaf[node] + 1] = node

    def _records_leaving(self, node: int, gap: NDArray[np.int64]) -> int:
        return int(((gap >= self.tree.first_leaf[node]) & (gap <= self.tree.last_leaf[node])).sum())

    def _stands(self, cluster: int, leaf: int, gap: NDArray[np.int64]) -> bool:
        """Whether every node from the root to this cluster is decided as before."""
        node = 0
        while True:
            left = self._records_leaving(node, gap)
            if node == cluster and int(self.records[node]) == left:
                return False
            if not self.tree.is_leaf(node):
                halves = (node + 1, int(self.tree.right[node]))
                lower, upper = (int(self.records[half]) - self._records_leaving(half, gap) for half in halves)
                if is_split(int(self.records[node]) - left, lower, upper, self.rule, False) != (node != cluster):
                    return False
            if node == cluster:
                return True
            node = node + 1 if leaf <= self.tree.last_leaf[node + 1] else int(self.tree.right[node])

    def cost(self, leaves: Sequence[int]) -> tuple[int, int, bool] | None:
        """Clusters and records retrained, and False: the cut stands. None if it may move."""
        gap = np.asarray(leaves, dtype=np.int64)
        clusters = {int(self.home[leaf]): int(leaf) for leaf in gap}
        if self.rule.max_diversity < 1 or not all(self._stands(node, leaf, gap) for node, leaf in clusters.items()):
            return None
        return len(clusters), sum(int(self.records[node]) - self._records_leaving(node, gap) for node in clusters), False


def cost_per_subject(
    members: Sequence[Member], subject_of: dict[str, str], tree: Hierarchy, rule: CutRule, slots: Sequence[str]
) -> NDArray[np.float64]:
    """(number of private subjects, 3): clusters retrained, records retrained, whether the cut changed, if that subject
    alone were erased; subjects in order of name."""
    counts = leaf_counts(tree, [member.leaf for member in members])
    paths = _Paths(tree, rule, counts)
    leaves: dict[str, list[int]] = {}
    for member in members:
        leaves.setdefault(subject_of[member.id], []).append(member.leaf)

    def full(gap: tuple[int, ...]) -> tuple[int, int, bool]:
        blast = blast_of(tree, rule, slots, counts, leaf_counts(tree, gap))
        return len(blast.retrained), blast.records_retrained, blast.merged

    known: dict[tuple[int, ...], tuple[int, int, bool]] = {}  # subjects that leave the same gaps cost the same
    rows = []
    for subject in sorted(leaves):
        gap = tuple(sorted(leaves[subject]))
        if gap not in known:
            known[gap] = paths.cost(gap) or full(gap)
        rows.append(known[gap])
    return np.array(rows, dtype=np.float64)
