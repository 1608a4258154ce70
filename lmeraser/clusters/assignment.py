"""Which private training records tune which slot: the hierarchy is cut by what its leaves hold."""

from collections.abc import Sequence
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from lmeraser.clusters.files import Cluster, Member
from lmeraser.clusters.hierarchy import CutRule, Hierarchy, cut
from lmeraser.clusters.quantisation import Integers
from lmeraser.core.errors import SlotError
from lmeraser.core.params import Cluster as ClusterParams


def rule_of(params: ClusterParams) -> CutRule:
    return CutRule(params.n_max, params.n_min, params.max_diversity)


def leaf_counts(tree: Hierarchy, leaves: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bincount(np.asarray(leaves, dtype=np.int64), minlength=tree.n_leaves)


def slot_of(tree: Hierarchy, node: int, slots: Sequence[str]) -> str:
    """The slot of a node: the index of its leftmost public leaf, unique within any cut and free of history."""
    first = int(tree.first_leaf[node])
    if first >= len(slots):
        raise SlotError(
            f"params.yaml: slots lists {len(slots)}, but {tree.n_leaves} are needed; run `lmeraser slots {tree.n_leaves}`"
        )
    return slots[first]


def prototype_of(tree: Hierarchy, node: int, params: ClusterParams) -> Integers:
    """(d,) where a cluster stands. Random ones stand nowhere: all are equally near, so that size alone weighs their answers."""
    return np.zeros_like(tree.centroid[node]) if params.method == "random" else tree.centroid[node]


def cluster_by_tree(members: Sequence[Member], tree: Hierarchy, params: ClusterParams, slots: Sequence[str]) -> list[Cluster]:
    """Cut the permanent hierarchy by the private counts; non-empty clusters from left to right."""
    nodes = cut(tree, leaf_counts(tree, [member.leaf for member in members]), rule_of(params))
    by_leaf: list[list[Member]] = [[] for _ in range(tree.n_leaves)]
    for member in members:
        by_leaf[member.leaf].append(member)
    clusters = []
    for node in nodes:
        first, last = int(tree.first_leaf[node]), int(tree.last_leaf[node])
        inside = sorted((member for leaf in by_leaf[first : last + 1] for member in leaf), key=attrgetter("id"))
        clusters.append(Cluster(slot_of(tree, node, slots), node, first, last, inside, prototype_of(tree, node, params)))
    return clusters
