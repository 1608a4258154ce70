"""The served model: soft routing over the clusters, mixed with the global head. Every answer says what each half gave.

While requests are open, what their people influenced is left out (`lmeraser/serve/quarantine.py`): the router falls to the next
cluster, and the global head is the one without them. Without any cluster the head answers alone, and the other way round.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from lmeraser.clusters.closed import ClosedHeads
from lmeraser.clusters.files import load_router, load_sizes
from lmeraser.clusters.global_head import GlobalHead, load_head
from lmeraser.clusters.quantisation import STEPS, Integers, squared_distances
from lmeraser.clusters.skeleton import Skeleton, load_skeleton
from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.learn.backbone import Backbone, load_backbone
from lmeraser.learn.cluster_model import ClusterModel, load_cluster_model
from lmeraser.serve.quarantine import Quarantine, read_quarantine

ROWS = 1024  # images whose summands, some thousand numbers each, are in memory at once
Probabilities = NDArray[np.float64]


def softmax(scores: NDArray[np.float32]) -> Probabilities:
    shifted = np.exp(scores.astype(np.float64) - scores.max(1, keepdims=True))
    shares: Probabilities = shifted / shifted.sum(1, keepdims=True)
    return shares


def nearest_of(distance: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """(n, m) distances to which of them are each row's `count` smallest; of equal ones the first."""
    if count >= distance.shape[1]:
        return np.ones(distance.shape, dtype=np.bool_)
    farthest = np.partition(distance, count - 1, axis=1)[:, count - 1 : count]
    near = ~(distance > farthest)
    tied = np.flatnonzero(np.count_nonzero(near, axis=1) > count)  # these few are sorted, all others need not be
    if len(tied):
        first = distance[tied].argsort(1, kind="stable")[:, :count]
        near[tied] = False
        near[tied[:, None], first] = True
    return near


def rows_by_cluster(wanted: NDArray[np.bool_]) -> dict[int, NDArray[np.int64]]:
    """(n, m) whether a row asks a cluster, to the rows of each cluster that is asked; both in order."""
    index, rows = np.nonzero(wanted.T)
    starts = np.flatnonzero(np.diff(index, prepend=-1))
    pieces = np.split(rows, starts[1:])
    return dict(zip(index[starts].tolist(), pieces, strict=False))  # without any start there is one piece, which is empty


@dataclass(frozen=True)
class Answers:
    """Probabilities (n, k) of each half and of the mix; nearest: (n,) index of each image's nearest cluster (-1: none)."""

    labels: list[str]
    served: Probabilities
    clusters_soft: Probabilities
    clusters_hard: Probabilities
    global_head: Probabilities
    nearest: NDArray[np.int64]


@dataclass(frozen=True)
class Look:
    """Some images through a cluster's frame. Attributes: frame: (c, s, s) float32; rows: (m,) of the images."""

    slot: str
    frame: NDArray[np.float32]
    rows: NDArray[np.int64]


class Looks(Protocol):
    """Features of n images, however they are come by: each is a function of its own image and the frame alone."""

    def plain(self) -> NDArray[np.float32]:
        """(n, d) without a frame."""

    def framed(self, looks: Sequence[Look]) -> Iterator[NDArray[np.float32]]:
        """(m, d) of each look, in turn."""


@dataclass(frozen=True)
class Passes:
    """Features by passes of the network. Attributes: pixels: (n, s, s, c) uint8; batch: records in a pass."""

    backbone: Backbone
    batch: int
    pixels: NDArray[np.uint8]

    @cached_property
    def _plain(self) -> NDArray[np.float32]:
        return self.backbone.features(self.pixels, self.batch)

    def plain(self) -> NDArray[np.float32]:
        return self._plain

    def framed(self, looks: Sequence[Look]) -> Iterator[NDArray[np.float32]]:
        for look in looks:
            frame = torch.from_numpy(look.frame).to(self.backbone.device)
            yield self.backbone.features(self.pixels[look.rows], self.batch, frame)


@dataclass(frozen=True)
class ServedModel:
    params: Params
    backbone: Backbone
    skeleton: Skeleton
    prototypes: Integers  # (m, d)
    slots: list[str]
    clusters: Sequence[ClusterModel | None]  # None: solved in closed form, with the head
    sizes: NDArray[np.float64]  # (m,) records of each cluster
    head: GlobalHead | None  # None while it is withheld

    @classmethod
    def load(cls, layout: Layout, params: Params) -> "ServedModel":
        """Read what the pipeline made. Raises: ProjectError if something is missing."""
        return cls._load(layout, params, frozenset(), layout.head)

    @classmethod
    def load_served(cls, project: Layout, params: Params) -> "ServedModel":
        """The model that answers now: without what the people of open requests influenced.

        Raises: ProjectError if something is missing, or if nothing may answer.
        """
        for _ in range(3):
            quarantine = read_quarantine(project)
            if quarantine is None:
                return cls.load(project, params)
            try:
                return cls._load_quarantined(project, params, quarantine)
            except ProjectError:
                if read_quarantine(project) == quarantine:
                    raise
                # It was replaced while its files were read: the new one is whole.
        raise ProjectError("the served model changed three times while it was read; retry")

    @classmethod
    def _load_quarantined(cls, project: Layout, params: Params, quarantine: Quarantine) -> "ServedModel":
        if quarantine.model_withheld:
            raise ProjectError(
                "the model is withheld: an open request erases public records, from which the backbone learnt, or everybody; "
                "retry when `lmeraser status` shows that it is certified"
            )
        return cls._load(quarantine.layout(project), params, frozenset(quarantine.slots), quarantine.head_file(project))

    @classmethod
    def _load(cls, layout: Layout, params: Params, left_out: frozenset[str], head: Path | None) -> "ServedModel":
        prototypes, slots = load_router(layout.router)
        solved = None if head is None else load_head(head)
        closed = solved.clusters.slots if solved and solved.clusters else []
        models = {slot: load_cluster_model(layout.tuned(slot)) for slot in slots if slot not in left_out}
        kept = [index for index, slot in enumerate(slots) if slot in models and (models[slot] is not None or slot in closed)]
        sizes = np.array([size.records for size in load_sizes(layout.clusters)], dtype=np.float64)
        if not kept and head is None:
            raise ProjectError("no cluster may answer and the global head is being solved; retry in a moment")
        return cls(
            params,
            load_backbone(layout.backbone, params),
            load_skeleton(layout.skeleton),
            prototypes[kept],
            [slots[index] for index in kept],
            [models[slots[index]] for index in kept],
            sizes[kept],
            solved,
        )

    @property
    def mix(self) -> float:
        """Weight of the clusters: `serve.mix`, unless one half answers alone."""
        if self.head is None:
            return 1.0
        return self.params.serve.mix if self.clusters else 0.0

    @cached_property
    def labels(self) -> list[str]:
        """All labels that any part of the model knows, sorted."""
        known = self.head.labels if self.head else []
        return sorted({*known, *(label for cluster in self.clusters if cluster for label in cluster.labels)})

    def _spread(self, probabilities: Probabilities, labels: list[str]) -> Probabilities:
        """(n, own labels) to (n, all labels)."""
        wide = np.zeros((len(probabilities), len(self.labels)))
        wide[:, [self.labels.index(label) for label in labels]] = probabilities
        return wide

    def routing_weights(self, quantised: Integers) -> Probabilities:
        """(n, d) to (n, m) weights that sum to 1, zero beyond the `serve.nearest` clusters."""
        if not self.clusters:
            return np.zeros((len(quantised), 0))
        return self._weights(squared_distances(quantised, self.prototypes))

    def _weights(self, squared: Integers) -> Probabilities:
        """Args: squared: (n, m) distances to every prototype, in squared steps; m is not 0."""
        serve = self.params.serve
        distance = squared / STEPS**2
        # Where clusters are random none is nearer than another: all answer.
        count = len(self.clusters) if self.params.cluster.method == "random" else serve.nearest
        near = nearest_of(distance, count)
        weight = np.zeros_like(distance)
        weight[near] = np.exp(-(distance - distance.min(1, keepdims=True))[near] / serve.temperature)
        if serve.size_weight:
            weight *= self.sizes
        shares: Probabilities = weight / weight.sum(1, keepdims=True)
        return shares

    def _frame(self, index: int) -> NDArray[np.float32] | None:
        """Of a cluster whose answers stand on features of their own."""
        cluster = self.clusters[index]
        return cluster.frame if cluster is not None and cluster.frame.any() else None

    def _cluster_probabilities(self, index: int, features: NDArray[np.float32]) -> Probabilities:
        """Args: features: (n, d) through the cluster's frame, or plain if it has none."""
        cluster = self.clusters[index]
        if cluster is None:
            return self._closed_probabilities(self.slots[index], features)
        scores = self.skeleton.standardise(features) @ cluster.weight.T + cluster.bias
        return self._spread(softmax(scores), cluster.labels)

    def _closed_probabilities(self, slot: str, plain: NDArray[np.float32]) -> Probabilities:
        head = cast("GlobalHead", self.head)
        summands = self.skeleton.summand(self.skeleton.quantise(plain), head.levels)
        heads, temperature = cast("ClosedHeads", head.clusters), cast("float", head.temperature)
        return self._spread(heads.probabilities(slot, summands, summands @ head.weight.T, temperature), head.labels)

    def ask(self, looks: Looks, asked: Mapping[int, NDArray[np.int64]]) -> Iterator[tuple[int, Probabilities]]:
        """Each cluster in turn, and its (m, k) answers. Args: asked: index of a cluster to the m rows of its images."""
        plain = looks.plain()
        frames = {index: frame for index in asked if (frame := self._frame(index)) is not None}
        framed = looks.framed([Look(self.slots[index], frame, asked[index]) for index, frame in frames.items()])
        for index, rows in asked.items():
            yield index, self._cluster_probabilities(index, next(framed) if index in frames else plain[rows])

    def predict(self, pixels: NDArray[np.uint8]) -> Answers:
        """Answer for images: (n, s, s, c) uint8. An image runs through the prompts of its nearest clusters only."""
        return self.answer(Passes(self.backbone, self.params.embed.batch, pixels))

    def answer(self, looks: Looks) -> Answers:
        """Answer for n images by their features."""
        plain = looks.plain()
        quantised = self.skeleton.quantise(plain)
        weight, nearest = np.zeros((len(plain), 0)), np.full(len(plain), -1, dtype=np.int64)
        asked: dict[int, NDArray[np.int64]] = {}
        if self.clusters:
            squared = squared_distances(quantised, self.prototypes)
            weight, nearest = self._weights(squared), squared.argmin(1)
            wanted = weight > 0
            wanted[np.arange(len(wanted)), nearest] = True
            asked = rows_by_cluster(wanted)
        soft = np.zeros((len(plain), len(self.labels)))
        hard = np.zeros_like(soft)
        for index, probabilities in self.ask(looks, asked):
            rows = asked[index]
            soft[rows] += weight[rows, index : index + 1] * probabilities
            own = nearest[rows] == index
            hard[rows[own]] = probabilities[own]
        whole = np.zeros_like(soft)
        if self.head is not None:
            for start in range(0, len(quantised), ROWS):
                summands = self.skeleton.summand(quantised[start : start + ROWS], self.head.levels)
                whole[start : start + ROWS] = self._spread(self.head.probabilities(summands), self.head.labels)
        return Answers(self.labels, self.mix * soft + (1 - self.mix) * whole, soft, hard, whole, nearest)
