"""The paper's clustering: private anchors, average linkage, prototypes that are means of private features.

Exact here too, because the pipeline is replayed from the retained records (anchors are chosen by id, not by row), but with a
wide blast radius: one deletion moves prototypes and with them other people's records. Kept for comparison and for those
whose private data look nothing like the public. Source: Xu et al. 2024, arXiv:2404.11056, section 4.2.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.cluster import AgglomerativeClustering

from lmeraser.clusters.files import Cluster, Member
from lmeraser.clusters.quantisation import Integers, mean_by_group, squared_distances
from lmeraser.core.digest import number_from
from lmeraser.core.errors import ParamsError
from lmeraser.core.params import Cluster as ClusterParams


def cluster_by_anchors(
    members: Sequence[Member], features: Integers, params: ClusterParams, slots: Sequence[str]
) -> list[Cluster]:
    """Cluster units around private anchors.

    Args:
        members: all private training records; features: (n, d) whole numbers in the same order.
    Raises: ParamsError if there are fewer units than clusters.
    """
    names = sorted({member.unit for member in members})
    place = {name: index for index, name in enumerate(names)}
    unit = np.array([place[member.unit] for member in members], dtype=np.int64)
    if len(names) < params.k:
        raise ParamsError(f"params.yaml: cluster.k is {params.k}, but there are {len(names)} private units; lower k")
    means = mean_by_group(features, unit, len(names))
    chosen = sorted(range(len(names)), key=lambda index: number_from("anchor", names[index]))[: params.anchors]
    anchors = means[sorted(chosen)]
    assigned = AgglomerativeClustering(n_clusters=params.k, linkage="average").fit_predict(anchors)
    prototypes = mean_by_group(anchors, assigned.astype(np.int64), params.k)
    nearest = squared_distances(means, prototypes).argmin(1)
    clusters = []
    for rank in range(params.k):
        inside = sorted(member for member, index in zip(members, unit, strict=True) if nearest[index] == rank)
        if inside:
            clusters.append(Cluster(slots[rank], rank, -1, -1, inside, prototypes[rank]))
    return clusters
