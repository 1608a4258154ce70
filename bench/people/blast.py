"""What it costs when one person leaves, for each clustering: from leaf counts (tree), or by replaying it (anchors)."""

from collections.abc import Sequence

import numpy as np

from bench.lab import pipeline as pipe
from lmeraser.clusters.assignment import rule_of
from lmeraser.clusters.files import Cluster, Member
from lmeraser.core.digest import number_from
from lmeraser.core.params import Params
from lmeraser.erase.blast import cost_per_subject
from lmeraser.learn.anchors import cluster_by_anchors


def _summary(rows: Sequence[tuple[float, float, bool]]) -> dict[str, float]:
    """Args: rows: clusters retrained, share of records retrained, whether the cut changed; one a person."""
    costs = np.array(rows, dtype=np.float64)
    return {
        "people": len(costs),
        "clusters_mean": float(costs[:, 0].mean()),
        "clusters_max": float(costs[:, 0].max()),
        "share_mean": float(costs[:, 1].mean()),
        "share_p95": float(np.quantile(costs[:, 1], 0.95)),
        "share_max": float(costs[:, 1].max()),
        "cut_changes": float(costs[:, 2].mean()),
    }


def blast_by_tree(members: Sequence[Member], train: pipe.Shelf, frozen: pipe.Frozen, params: Params) -> dict[str, float]:
    """Every person in turn."""
    subject_of = {record.id: record.subject for record in train.records}
    _, subject = np.unique([subject_of[member.id] for member in members], return_inverse=True)
    leaf = np.array([member.leaf for member in members], dtype=np.int64)
    costs = cost_per_subject(leaf, subject, frozen.skeleton.hierarchy, rule_of(params.cluster), params.slots)
    return _summary([(row[0], row[1] / len(members), bool(row[2])) for row in costs])


def blast_by_anchors(
    members: Sequence[Member],
    clusters: Sequence[Cluster],
    train: pipe.Shelf,
    frozen: pipe.Frozen,
    params: Params,
    sample: int,
) -> dict[str, float]:
    """A sample of people by hash of their names. A cluster is retrained if no cluster before had just its members; its slot
    does not matter (the linkage numbers clusters anew each time), which is in the paper's favour."""
    features = frozen.skeleton.quantise(frozen.features)
    before = {frozenset(member.id for member in cluster.members) for cluster in clusters}
    people = sorted({record.subject for record in train.records}, key=lambda name: number_from("sample", name))[:sample]
    rows = []
    for person in people:
        kept = [row for row, record in enumerate(train.records) if record.subject != person]
        after = cluster_by_anchors([members[row] for row in kept], features[kept], params.cluster, params.slots)
        changed = [len(cluster.members) for cluster in after if frozenset(member.id for member in cluster.members) not in before]
        rows.append((len(changed), sum(changed) / len(members), len(after) != len(clusters)))
    return _summary(rows)
