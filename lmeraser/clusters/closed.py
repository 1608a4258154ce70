"""Cluster heads in closed form: a cluster's own class means under the covariance of all, pulled towards the means of all.

Nothing is trained: a cluster's sums are those of its leaves, so that a heads-only cluster costs an addition and a solve, and
a person leaves all of it by subtraction. Every head stands on everybody's covariance: exact, not isolated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lmeraser.clusters.discriminant import Discriminant, Priors, log_priors
from lmeraser.clusters.leaf_sums import LeafSums

if TYPE_CHECKING:
    from lmeraser.clusters.files import ClusterSize


@dataclass(frozen=True)
class ClosedHeads:
    """Heads of m clusters over k labels (r pairs of a cluster and a label that it has, p summands).

    Attributes:
        slots: the m clusters; weight: (r, p), with the row's cluster and label in `cluster` and `label`, both (r,).
        bias: (m, k) of every label; where a cluster lacks a label, the global head's weight stands.
    """

    slots: list[str]
    weight: NDArray[np.float64]
    cluster: NDArray[np.int64]
    label: NDArray[np.int64]
    bias: NDArray[np.float64]

    def probabilities(
        self, slot: str, summands: NDArray[np.float64], common: NDArray[np.float64], temperature: float
    ) -> NDArray[np.float64]:
        """(n, k) answers of one cluster. Args: summands: (n, p); common: (n, k) global scores without their bias."""
        index = self.slots.index(slot)
        own = np.flatnonzero(self.cluster == index)
        scores = common.copy()
        scores[:, self.label[own]] = summands @ self.weight[own].T
        shares: NDArray[np.float64] = softmax((scores + self.bias[index]) / temperature, axis=1)
        return shares


def solve_clusters(
    sums: LeafSums, clusters: Sequence["ClusterSize"], labels: Sequence[str], shared: Discriminant, pull: float, priors: Priors
) -> ClosedHeads:
    """Args: labels: of `shared`, sorted; pull: records that the global mean, and the global share of a label, count for."""
    place = {label: index for index, label in enumerate(labels)}
    cluster = np.array([_cluster_of(leaf, clusters) for leaf in sums.leaves.tolist()], dtype=np.int64)
    label = np.array([place[name] for name in sums.labels], dtype=np.int64)
    pairs, row = np.unique(np.stack([cluster, label], 1), axis=0, return_inverse=True)
    total, counts = np.zeros((len(pairs), sums.sums.shape[1])), np.zeros(len(pairs))
    np.add.at(total, row.reshape(-1), sums.sums.astype(np.float64))
    np.add.at(counts, row.reshape(-1), sums.counts)
    means = (total * shared.unit + pull * shared.means[pairs[:, 1]]) / (counts + pull)[:, None]
    weight, bias = shared.scores_of(means, pairs[:, 1])
    records = np.zeros((len(clusters), len(labels)))
    records[pairs[:, 0], pairs[:, 1]] = counts
    every = np.tile(shared.scores()[1], (len(clusters), 1))
    every[pairs[:, 0], pairs[:, 1]] = bias
    every += log_priors(records + pull * shared.counts / shared.counts.sum(), priors)
    return ClosedHeads([size.slot for size in clusters], weight, pairs[:, 0], pairs[:, 1], every)


def _cluster_of(leaf: int, clusters: Sequence["ClusterSize"]) -> int:
    """The cluster whose leaves hold it: a cut covers every leaf that holds records."""
    return next(index for index, size in enumerate(clusters) if size.first_leaf <= leaf <= size.last_leaf)
