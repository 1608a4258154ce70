"""What the membership test measures: a person's loss under clusters tuned with them, without them, and with other seeds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from lmeraser.clusters.skeleton import Skeleton
from lmeraser.core.digest import seed_for
from lmeraser.core.params import Params
from lmeraser.learn.backbone import Backbone
from lmeraser.learn.cluster_model import ClusterModel
from lmeraser.learn.tuning import tune_cluster

FLOOR = 1e-12  # probability of a label that a head does not know


@dataclass(frozen=True)
class ClusterRecords:
    """A cluster's training records, sorted by id (n records of side s, c channels)."""

    slot: str
    ids: list[str]
    pixels: NDArray[np.uint8]  # (n, s, s, c)
    labels: list[str]

    def only(self, wanted: NDArray[np.bool_]) -> "ClusterRecords":
        """The rows of a (n,) mask."""
        rows = np.flatnonzero(wanted)
        return ClusterRecords(self.slot, [self.ids[row] for row in rows], self.pixels[rows], [self.labels[row] for row in rows])


@dataclass(frozen=True)
class Losses:
    """Mean loss of a person's records: before and after deletion, and under each reference."""

    before: float
    after: float
    references: list[float]


def losses(
    model: ClusterModel, records: ClusterRecords, backbone: Backbone, skeleton: Skeleton, batch: int
) -> NDArray[np.float64]:
    """(n,) cross-entropy of each record under a cluster's prompt and head."""
    features = backbone.features(records.pixels, batch, torch.from_numpy(model.frame).to(backbone.device))
    shares = softmax(skeleton.standardise(features).astype(np.float64) @ model.weight.T + model.bias, axis=1)
    places = [model.labels.index(label) if label in model.labels else None for label in records.labels]
    known = [share[place] if place is not None else 0.0 for share, place in zip(shares, places, strict=True)]
    cross_entropy: NDArray[np.float64] = -np.log(np.maximum(np.array(known), FLOOR))
    return cross_entropy


def trial(
    clusters: Sequence[tuple[ClusterRecords, NDArray[np.bool_], ClusterModel]],
    backbone: Backbone,
    skeleton: Skeleton,
    params: Params,
    retrainings: int,
) -> Iterator[Losses | None]:
    """Tune a person's clusters without them, once as a deletion would and K times with other seeds.

    Args: clusters: of the one person: all records of the cluster, which of them are the person's, the served model.
    Yields: None after each retraining but the last (for progress), then the losses.
    """
    batch = params.embed.batch
    before: list[NDArray[np.float64]] = []
    sums = np.zeros(retrainings + 1)
    for records, own, served in clusters:
        before.append(losses(served, records.only(own), backbone, skeleton, batch))
    count = sum(map(len, before))
    for turn in range(retrainings + 1):
        # Turn 0 is the deletion itself: the params' own seed.
        changed = params if turn == 0 else params.model_copy(update={"seed": seed_for(params.seed, f"membership {turn}")})
        for records, own, _ in clusters:
            kept = records.only(~own)
            model = tune_cluster(kept.ids, kept.pixels, kept.labels, backbone, skeleton, changed, "membership")
            sums[turn] += losses(model, records.only(own), backbone, skeleton, batch).sum()
        if turn < retrainings:
            yield None
    means = sums / count
    yield Losses(float(np.concatenate(before).mean()), float(means[0]), [float(mean) for mean in means[1:]])
