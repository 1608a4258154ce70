"""What people who are to come would retrain: a pure function of leaf counts, as the plan of an erasure is."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.clusters.assignment import leaf_counts, rule_of
from lmeraser.erase.blast import blast_of_moves
from lmeraser.erase.plan import Facts


def plan_addition(facts: Facts, came: Mapping[str, Any]) -> dict[str, Any]:
    """Counts and slots; no name. Args: came: what the stage `newcomers` wrote."""
    tree, params = facts.tree, facts.params
    leave, arrive = (_by_leaf(came[name], tree.n_leaves) for name in ("leave", "arrive"))
    counts = leaf_counts(tree, facts.placements["leaf"].to_numpy())
    blast = blast_of_moves(tree, rule_of(params.cluster), params.slots, counts, leave, arrive)
    told = {name: came[name] for name in ("records", "training", "subjects", "known", "repeated", "erased", "parts")}
    return told | {
        "slots_retrained": sorted(blast.retrained),
        "slots_emptied": blast.emptied,
        "clusters_total": blast.clusters_after,
        "records_retrained": blast.records_retrained,
        "records_total": blast.records_after,
        "cut_changes": blast.merged,
        "exact": params.cluster.method != "anchors",
    }


def _by_leaf(counts: Mapping[str, int], leaves: int) -> NDArray[np.int64]:
    filled = np.zeros(leaves, dtype=np.int64)
    for leaf, count in counts.items():
        filled[int(leaf)] = count
    return filled
