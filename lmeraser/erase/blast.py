"""Blast radius: which clusters a deletion changes, from leaf counts alone. Pure, and needs neither torch nor a feature."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lmeraser.clusters.assignment import leaf_counts, slot_of
from lmeraser.clusters.hierarchy import CutRule, Hierarchy, cut, records_by_node


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


def blast_of_moves(
    tree: Hierarchy,
    rule: CutRule,
    slots: Sequence[str],
    counts: NDArray[np.int64],
    leave: NDArray[np.int64],
    arrive: NDArray[np.int64],
) -> Blast:
    """What changes when records leave their leaf, for good or for another one, and records arrive.

    Args:
        counts: (leaves,) private training records per leaf before; leave, arrive: (leaves,) those of units that lose or get a
            record, where they are and where they will be. One that stays in its leaf is in both: the leaf has others
            than before.
    """
    after = counts - leave + arrive
    blast, touched = blast_of(tree, rule, slots, counts, leave - arrive), (leave > 0) | (arrive > 0)
    nodes = cut(tree, after, rule)
    inside = {slot_of(tree, node, slots): slice(int(tree.first_leaf[node]), int(tree.last_leaf[node]) + 1) for node in nodes}
    # Who moves may leave the counts as they are.
    retrained = [slot for slot, leaves in inside.items() if slot in blast.retrained or touched[leaves].any()]
    return replace(blast, retrained=retrained, records_retrained=sum(int(after[inside[slot]].sum()) for slot in retrained))


@dataclass(frozen=True)
class _Gaps:
    """What subjects leave behind, each different gap once, as entries of a gap and a leaf (e of them, sorted by gap).

    Attributes: gap, leaf: (e,); records: (e,) that leave this leaf; count: how many gaps.
    """

    gap: NDArray[np.int64]
    leaf: NDArray[np.int64]
    records: NDArray[np.int64]
    count: int

    def removed(self, gap: int, leaves: int) -> NDArray[np.int64]:
        """(leaves,) records that leave."""
        inside = slice(*np.searchsorted(self.gap, (gap, gap + 1)))
        removed = np.zeros(leaves, dtype=np.int64)
        removed[self.leaf[inside]] = self.records[inside]
        return removed


def _distinct_rows(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each different row stands first, and (m,) which of them each row is. Args: rows: (m, w) whole numbers from 0."""
    if rows.shape[1] > 8:
        _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        return first, which.reshape(-1)
    which = np.zeros(len(rows), dtype=np.int64)
    for column in rows.T:  # numbers sort much faster than rows
        _, first, which = np.unique(which * (column.max() + 1) + column, return_index=True, return_inverse=True)
    return first, which


def _gaps(leaf: NDArray[np.int64], subject: NDArray[np.int64]) -> tuple[_Gaps, NDArray[np.int64]]:
    """The different gaps, and which of them each subject leaves: those that leave the same cost the same."""
    leaves = int(leaf.max()) + 1
    key, records = np.unique(subject * leaves + leaf, return_counts=True)
    owner, place = key // leaves, key % leaves
    start = np.flatnonzero(np.diff(owner, prepend=-1))
    width = np.diff(start, append=len(key))
    code = place * (records.max() + 1) + records
    of_subject, parts, count = np.zeros(len(start), dtype=np.int64), [], 0
    for size in np.unique(width).tolist():
        those = np.flatnonzero(width == size)
        entries = start[those][:, None] + np.arange(size)
        first, which = _distinct_rows(code[entries])
        of_subject[those] = count + which
        parts.append((np.repeat(count + np.arange(len(first)), size), entries[first].reshape(-1)))
        count += len(first)
    gap, entry = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _Gaps(gap, place[entry], records[entry], count), of_subject


class _Paths:
    """Finds what gaps cost where they leave the cut as it is, which is nearly always: for all of them at once.

    Whether a node is split depends on what it and its halves hold, so only the nodes above a gap need a look. Trees of hundreds
    of clusters have paths of ten nodes, and there may be as many gaps as people.
    """

    def __init__(self, tree: Hierarchy, rule: CutRule, counts: NDArray[np.int64]) -> None:
        self.tree, self.rule = tree, rule
        self.records = records_by_node(tree, counts)
        self.is_cluster = np.zeros(len(tree.right), dtype=np.bool_)
        self.is_cluster[cut(tree, counts, rule)] = True
        nodes: list[list[int]] = [self._path(leaf) if counts[leaf] else [] for leaf in range(tree.n_leaves)]
        self.length = np.array([len(path) for path in nodes], dtype=np.int64)
        self.start = np.cumsum(self.length) - self.length
        self.nodes = np.array([node for path in nodes for node in path], dtype=np.int64)

    def _path(self, leaf: int) -> list[int]:
        """The nodes from the root to the leaf's cluster, and the half of the cluster in which the leaf lies."""
        path, node = [0], 0
        while not self.tree.is_leaf(node):
            below = self.is_cluster[node]
            node = node + 1 if leaf <= self.tree.last_leaf[node + 1] else int(self.tree.right[node])
            path.append(node)
            if below:
                break
        return path

    def costs(self, gaps: _Gaps) -> NDArray[np.float64]:
        """(gaps, 3): clusters and records retrained, and 0: the cut stands. Not a number where it may move."""
        tree, n_nodes = self.tree, len(self.tree.right)
        if self.rule.max_diversity < 1:
            return np.full((gaps.count, 3), np.nan)
        length = self.length[gaps.leaf]
        entry = np.repeat(np.arange(len(length)), length)
        step = np.arange(len(entry)) - np.repeat(np.cumsum(length) - length, length)
        node = self.nodes[self.start[gaps.leaf][entry] + step]
        key, which = np.unique(gaps.gap[entry] * n_nodes + node, return_inverse=True)
        leaving = np.bincount(which, weights=gaps.records[entry]).astype(np.int64)  # far below 2^53

        def left_of(gap: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
            """Records of these nodes afterwards."""
            place = np.minimum(np.searchsorted(key, gap * n_nodes + at), len(key) - 1)
            rest: NDArray[np.int64] = self.records[at] - np.where(key[place] == gap * n_nodes + at, leaving[place], 0)
            return rest

        gap, node = key // n_nodes, key % n_nodes
        cluster, inner = self.is_cluster[node], tree.right[node] > 0
        below = np.zeros(n_nodes, dtype=np.bool_)  # halves of clusters: nothing is decided there
        split = np.flatnonzero(self.is_cluster & (tree.right > 0))
        below[split + 1] = below[tree.right[split]] = True
        after, splits = left_of(gap, node), np.ones(len(node), dtype=np.bool_)
        for half in (np.where(inner, node + 1, 0), tree.right[node]):  # as `hierarchy.is_split` says, which a test compares
            rest = left_of(gap, half)
            splits &= (rest == 0) | (rest >= self.rule.n_min)
        splits &= after > self.rule.n_max
        moves = ((inner & (splits == cluster)) | (cluster & (after == 0))) & ~below[node]
        costs = np.zeros((gaps.count, 3))
        costs[:, 0] = np.bincount(gap[cluster], minlength=gaps.count)
        costs[:, 1] = np.bincount(gap[cluster], weights=after[cluster], minlength=gaps.count)
        costs[gap[moves]] = np.nan
        return costs


def cost_per_subject(
    leaf: NDArray[np.int64], subject: NDArray[np.int64], tree: Hierarchy, rule: CutRule, slots: Sequence[str]
) -> NDArray[np.float64]:
    """What it costs if one subject alone were erased, for each of them.

    Args: leaf: (n,) of each private training record; subject: (n,) which of the s subjects it is of, each number in [0, s) used.
    Returns: (s, 3) clusters retrained, records retrained, whether the cut changed.
    """
    counts = leaf_counts(tree, leaf)
    gaps, of_subject = _gaps(leaf, subject)
    costs = _Paths(tree, rule, counts).costs(gaps)
    for gap in np.flatnonzero(np.isnan(costs[:, 0])).tolist():
        blast = blast_of(tree, rule, slots, counts, gaps.removed(gap, tree.n_leaves))
        costs[gap] = len(blast.retrained), blast.records_retrained, blast.merged
    return costs[of_subject]
