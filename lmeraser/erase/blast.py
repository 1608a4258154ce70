"""Blast radius: which clusters a deletion changes, from leaf counts alone. Pure, and needs neither torch nor a feature."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.clustering import Member, leaf_counts, slot_of
from lmeraser.core.hierarchy import CutRule, Hierarchy, cut


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


def cost_per_subject(
    members: Sequence[Member], subject_of: dict[str, str], tree: Hierarchy, rule: CutRule, slots: Sequence[str]
) -> NDArray[np.float64]:
    """(number of private subjects, 3): clusters retrained, records retrained, whether the cut changed, if that subject
    alone were erased; subjects in order of name."""
    counts = leaf_counts(tree, [member.leaf for member in members])
    leaves: dict[str, list[int]] = {}
    for member in members:
        leaves.setdefault(subject_of[member.id], []).append(member.leaf)
    known: dict[tuple[int, ...], Blast] = {}  # subjects that leave the same gaps cost the same
    rows = []
    for subject in sorted(leaves):
        gap = tuple(sorted(leaves[subject]))
        if gap not in known:
            known[gap] = blast_of(tree, rule, slots, counts, leaf_counts(tree, gap))
        blast = known[gap]
        rows.append((len(blast.retrained), blast.records_retrained, blast.merged))
    return np.array(rows, dtype=np.float64)
