"""The permanent hierarchy over public features, and the cut through it that adapts to the private data.

Clusters must not be disturbed by a deletion. The tree is made of public features alone, so it never changes; only where it is
cut depends on how many private records each leaf holds. An untouched node keeps its name, its slot and its records.
Xu et al. 2024 (arXiv:2404.11056, section 4.2) cluster the private data themselves; docs/decisions/0002 says why we do not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmeraser.clusters.quantisation import Integers

AXIS_STEPS = 1024  # steps per unit of a split's axis


@dataclass(frozen=True)
class Hierarchy:
    """A binary tree in preorder: node 0 is the root, the left child of node i is i + 1.

    Attributes (m nodes, l leaves, d features):
        right: (m,) int64, index of the right child, 0 for a leaf.
        axis: (m, d) whole numbers; a unit goes left if axis · feature <= threshold.
        threshold: (m,) whole numbers.
        centroid: (m, d) whole numbers, mean of the public units below the node.
        first_leaf, last_leaf: (m,) int64, the leaves below a node, both inclusive, counted from the left.
    """

    right: NDArray[np.int64]
    axis: Integers
    threshold: Integers
    centroid: Integers
    first_leaf: NDArray[np.int64]
    last_leaf: NDArray[np.int64]

    @property
    def n_leaves(self) -> int:
        return int(self.last_leaf[0]) + 1

    def is_leaf(self, node: int) -> bool:
        return int(self.right[node]) == 0

    def route(self, units: Integers) -> NDArray[np.int64]:
        """The leaf of each unit: (n, d) whole numbers to (n,). A unit's leaf depends on that unit alone."""
        node = np.zeros(len(units), dtype=np.int64)
        while True:
            inner = np.flatnonzero(self.right[node])
            if not len(inner):
                return self.first_leaf[node]
            at = node[inner]
            left = (units[inner] * self.axis[at]).sum(1) <= self.threshold[at]
            node[inner] = np.where(left, at + 1, self.right[at])


def _principal_axis(points: Integers) -> Integers:
    """First principal axis as whole numbers; its largest entry is positive, so that its sign is no accident."""
    centred = points - points.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axis = np.rint(axes[0] * AXIS_STEPS)
    sign = 1.0 if axis[np.argmax(np.abs(axis))] >= 0 else -1.0
    turned: Integers = axis * sign
    return turned


def _median_split(points: Integers) -> tuple[Integers, float, NDArray[np.bool_]] | None:
    """Axis, threshold and which points go left, about half of them; None if all points are alike."""
    axis = _principal_axis(points)
    place = points @ axis
    ordered = np.sort(place)
    gaps = np.flatnonzero(ordered[1:] > ordered[:-1])  # a cut after position g separates
    if not len(gaps):
        return None
    cut = gaps[np.argmin(np.abs(gaps + 1 - len(points) / 2))]
    return axis, float(ordered[cut]), place <= ordered[cut]


def grow(units: Integers, leaves: int) -> Hierarchy:
    """Split public units at the median of their first principal axis, the largest node first, until there are `leaves`.

    Args:
        units: (n, d) whole numbers, one row a public unit, in an order that is a function of the records.
        leaves: at most this many; fewer if units are few or alike (`build_skeleton` refuses the first).
    """
    members = {"": np.arange(len(units))}
    splits: dict[str, tuple[Integers, float]] = {}
    hopeless: set[str] = set()
    while len(members) < leaves:
        open_nodes = [name for name in members if name not in hopeless and len(members[name]) > 1]
        if not open_nodes:
            break
        name = min(open_nodes, key=lambda node: (-len(members[node]), node))
        halves = _median_split(units[members[name]])
        if halves is None:
            hopeless.add(name)
            continue
        axis, threshold, left = halves
        inside = members.pop(name)
        splits[name] = (axis, threshold)
        members[name + "0"], members[name + "1"] = inside[left], inside[~left]
    return _assemble(units, members, splits)


def _assemble(units: Integers, members: dict[str, NDArray[np.int64]], splits: dict[str, tuple[Integers, float]]) -> Hierarchy:
    names = sorted([*members, *splits])  # preorder: a prefix sorts before what it begins
    place = {name: index for index, name in enumerate(names)}
    leaves = sorted(members)
    below = {name: [leaf for leaf in leaves if leaf.startswith(name)] for name in names}
    nothing = np.zeros(units.shape[1])
    return Hierarchy(
        right=np.array([place[name + "1"] if name in splits else 0 for name in names], dtype=np.int64),
        axis=np.array([splits[name][0] if name in splits else nothing for name in names]),
        threshold=np.array([splits[name][1] if name in splits else 0.0 for name in names]),
        centroid=np.array([np.rint(units[np.concatenate([members[leaf] for leaf in below[name]])].mean(0)) for name in names]),
        first_leaf=np.array([leaves.index(below[name][0]) for name in names], dtype=np.int64),
        last_leaf=np.array([leaves.index(below[name][-1]) for name in names], dtype=np.int64),
    )


@dataclass(frozen=True)
class CutRule:
    """When a node is split. See `cluster` in params.yaml."""

    n_max: int
    n_min: int
    max_diversity: float


def diversity(tree: Hierarchy, node: int, counts: NDArray[np.int64]) -> float:
    """How far a node's private records spread, as a share of the public spread of all leaves.

    Needs no private feature: each record stands at its leaf's public centroid.

    Args: counts: (leaves,) private training records per leaf.
    """
    is_leaf = tree.right == 0
    centroids = tree.centroid[is_leaf]
    total = ((centroids - centroids.mean(0)) ** 2).sum() / len(centroids)
    inside = slice(int(tree.first_leaf[node]), int(tree.last_leaf[node]) + 1)
    weight = counts[inside].astype(np.float64)
    if not weight.sum() or not total:
        return 0.0
    middle = (weight[:, None] * centroids[inside]).sum(0) / weight.sum()
    spread = (weight * ((centroids[inside] - middle) ** 2).sum(1)).sum() / weight.sum()
    return float(spread / total)


def cut(tree: Hierarchy, counts: NDArray[np.int64], rule: CutRule) -> list[int]:
    """The nodes that are clusters: they cover every leaf that holds records, and no two overlap.

    A node is split while it holds more than n_max records or is too diverse, unless a half would hold fewer than n_min (but
    some) records. A function of the leaf counts alone, so whatever was erased before leaves no trace.

    Args: counts: (leaves,) private training records per leaf.
    Returns: non-empty nodes from left to right.
    """
    records = records_by_node(tree, counts)
    chosen: list[int] = []
    stack = [0]
    while stack:
        node = stack.pop()
        if not records[node]:
            continue
        if not tree.is_leaf(node):
            left, right = node + 1, int(tree.right[node])
            diverse = rule.max_diversity < 1 and diversity(tree, node, counts) > rule.max_diversity
            if is_split(int(records[node]), int(records[left]), int(records[right]), rule, diverse):
                stack.extend((right, left))
                continue
        chosen.append(node)
    return chosen


def records_by_node(tree: Hierarchy, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """(m,) records below each node."""
    total = np.concatenate([[0], np.cumsum(counts)])
    records: NDArray[np.int64] = total[tree.last_leaf + 1] - total[tree.first_leaf]
    return records


def is_split(records: int, left: int, right: int, rule: CutRule, diverse: bool) -> bool:
    """Whether an inner node that holds records is split, by what it and its halves hold."""
    return (records > rule.n_max or diverse) and all(half == 0 or half >= rule.n_min for half in (left, right))
