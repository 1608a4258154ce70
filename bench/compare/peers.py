"""What a user would pick instead, each over the same backbone, data, seeds and epochs, and each with its own exact deletion.

Every peer divides the private records into groups and trains one part a group, as a function of that group's records alone. A
deletion trains again the groups that it changed: so cost, and the check that an update equals a rebuild, are the same code for
all of them (bench/compare/deletion.py). Whole models are in whole.py, models without training in closed.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.lab import pipeline as pipe
from bench.lab.changes import changed
from lmeraser.clusters.assignment import leaf_counts, rule_of
from lmeraser.clusters.files import Cluster, Member
from lmeraser.clusters.global_head import GlobalHead, Rule, Sums, solve
from lmeraser.clusters.hierarchy import cut
from lmeraser.clusters.skeleton import Skeleton, build_skeleton
from lmeraser.core.digest import number_from
from lmeraser.core.params import Params
from lmeraser.data.tensors import read_tensors
from lmeraser.data.units import group_units
from lmeraser.learn.anchors import cluster_by_anchors
from lmeraser.learn.backbone import Backbone, load_backbone
from lmeraser.learn.cluster_model import ClusterModel
from lmeraser.learn.embedding import exact_sums, leaf_of_units
from lmeraser.learn.tuning import tune_cluster
from lmeraser.serve.serving import ServedModel

Part = dict[str, NDArray[Any]]  # what one group's training made
Rows = NDArray[np.int64]  # of the private training records, ascending
Probabilities = NDArray[np.float64]
KEEP_THE_SKELETON = ("tune.", "serve.", "head.ridge", "cluster.n_", "cluster.k", "cluster.method", "slots")


@dataclass(frozen=True)
class Ground:
    """What all peers stand on (n training records, m test records, d features)."""

    params: Params
    data: pipe.Data
    backbone: Backbone
    skeleton: Skeleton
    features: NDArray[np.float32]  # (n, d) as the backbone gives them
    test_features: NDArray[np.float32]  # (m, d)
    public_features: NDArray[np.float32]

    @classmethod
    def prepare(cls, data: pipe.Data, params: Params, frame: torch.Tensor | None = None) -> "Ground":
        """Features and skeleton. Args: frame: (c, s, s) added to every image, or none."""
        backbone = load_backbone(pipe.backbone_file(data.public, params), params)
        shelves = (data.train, data.test, data.public)
        train, test, public = pipe.side_by_side(lambda shelf: backbone.features(shelf.pixels, params.embed.batch, frame), shelves)
        skeleton = build_skeleton(pipe.public_features(public, data.public.records, backbone.widths, params), params)
        return cls(params, data, backbone, skeleton, train, test, public)

    def with_params(self, changes: Mapping[str, object]) -> "Ground":
        """The same ground with other params; the skeleton is made anew where they ask for it."""
        params = changed(self.params, changes)
        if all(name.startswith(KEEP_THE_SKELETON) for name in changes):
            return replace(self, params=params)
        public = pipe.public_features(self.public_features, self.data.public.records, self.backbone.widths, params)
        return replace(self, params=params, skeleton=build_skeleton(public, params))

    @cached_property
    def unfolded(self) -> dict[str, torch.Tensor]:
        """The backbone's weights as they were trained, batch norms and all."""
        weights, _ = read_tensors(pipe.backbone_file(self.data.public, self.params))
        return {name: torch.from_numpy(value) for name, value in weights.items()}

    @cached_property
    def ids(self) -> list[str]:
        return [record.id for record in self.data.train.records]

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """(n,) a random number for each record: a function of its id alone."""
        return np.array([number_from("record", identity) for identity in self.ids], dtype=np.uint64)

    @cached_property
    def labels(self) -> list[str]:
        """Every label of the private training records, sorted."""
        return sorted(set(self.data.train.labels))

    @cached_property
    def units(self) -> tuple[list[str], Rows]:
        """Names of the units that stay together, and (n,) each record's."""
        return group_units(self.data.train.records, self.params.cluster.unit)

    def spread(self, use: str, count: int) -> Rows:
        """(n,) a number below `count` for each record: a function of its unit and the use alone."""
        names, unit = self.units
        return np.array([number_from(use, name) % count for name in names], dtype=np.int64)[unit]

    @cached_property
    def subjects(self) -> Rows:
        """(n,) the subject of each record, in [0, number of subjects)."""
        numbers: Rows = np.unique([record.subject for record in self.data.train.records], return_inverse=True)[1]
        return numbers

    @cached_property
    def sums(self) -> Sums:
        summands = self.skeleton.summand(self.skeleton.quantise(self.features), self.params.projection.levels)
        return exact_sums(summands, self.data.train.labels)

    @property
    def rule(self) -> Rule:
        return pipe.rule_for(self.skeleton, self.params)

    @cached_property
    def head(self) -> GlobalHead:
        return solve([self.sums], self.rule)


class Peer(ABC):
    """A way to tune on private records that can forget exactly.

    Attributes:
        epochs: passes over a group's records in one training; slices: of a group, trained one after the other with the state
            kept in between (SISA); a deletion restarts before the first slice that it changed.
        passes: of the backbone, or of a whole model, for one answer.
        replays: deletions to sample; few where one of them must replay a clustering.
    """

    slices = 1
    passes = 1.0
    replays = 300

    def __init__(self, name: str, ground: Ground) -> None:
        self.name, self.ground = name, ground
        self.epochs = float(ground.params.tune.epochs)

    @cached_property
    def slice_of(self) -> Rows:
        """(n,) the slice of each record: a function of its unit alone."""
        return self.ground.spread("slice", self.slices)

    @abstractmethod
    def partition(self, kept: NDArray[np.bool_]) -> Rows:
        """(n,) the group of each record, -1 for those that are not kept: a function of the kept records alone."""

    @abstractmethod
    def train(self, rows: Rows, start: Part | None) -> Part:
        """One group's part from its records (with slices: from the state that the slices before left)."""

    @abstractmethod
    def answer(self, groups: Sequence[tuple[int, Rows, Part]]) -> dict[str, Probabilities]:
        """(m, labels) answers to the test records: `served`, and each half alone where there are halves."""

    def storage(self, parts: Sequence[Part]) -> int:
        """Bytes beside the frozen backbone."""
        return sum(array.nbytes for part in parts for array in part.values())


class Tuned(Peer):
    """Groups that tune a prompt and a head, or a head alone, over the frozen backbone."""

    def train(self, rows: Rows, start: Part | None) -> Part:
        ground, shelf = self.ground, self.ground.data.train
        labels = [shelf.records[row].label for row in rows]
        ids = [ground.ids[row] for row in rows]
        model = tune_cluster(ids, shelf.pixels[rows], labels, ground.backbone, ground.skeleton, ground.params, self.name)
        part: Part = {"weight": model.weight, "bias": model.bias}
        if ground.params.tune.frame_px:
            part["frame"] = model.frame
        return part | {"labels": np.array([ground.labels.index(label) for label in model.labels])}

    def served(self, groups: Sequence[tuple[int, Rows, Part]], prototypes: NDArray[np.float64], ground: Ground) -> ServedModel:
        models = []
        for _, _, part in groups:
            names = [ground.labels[index] for index in part["labels"]]
            nothing = np.zeros((ground.params.image.channels, *[ground.params.image.size] * 2), dtype=np.float32)
            models.append(ClusterModel(part.get("frame", nothing), part["weight"], part["bias"], names))
        sizes = np.array([len(rows) for _, rows, _ in groups], dtype=np.float64)
        slots = [str(name) for name, _, _ in groups]
        return ServedModel(ground.params, ground.backbone, ground.skeleton, prototypes, slots, models, sizes, ground.head)

    @property
    def framed(self) -> bool:
        return self.ground.params.tune.frame_px > 0


class Ours(Tuned):
    """The tree over public features, soft routing and the global head."""

    def __init__(self, name: str, ground: Ground) -> None:
        super().__init__(name, ground)
        names, unit = ground.units
        quantised = ground.skeleton.quantise(ground.features)
        self.leaf = leaf_of_units(names, quantised, unit, ground.skeleton.hierarchy, ground.params.cluster.method)[unit]
        clusters = len(np.unique(self.partition(np.ones(len(self.leaf), dtype=bool))))
        answering = clusters if ground.params.cluster.method == "random" else min(clusters, ground.params.serve.nearest)
        self.passes = 1 + (answering if self.framed else 0)

    def partition(self, kept: NDArray[np.bool_]) -> Rows:
        tree = self.ground.skeleton.hierarchy
        node_of_leaf = np.full(tree.n_leaves, -1, dtype=np.int64)
        for node in cut(tree, leaf_counts(tree, self.leaf[kept]), rule_of(self.ground.params.cluster)):
            node_of_leaf[int(tree.first_leaf[node]) : int(tree.last_leaf[node]) + 1] = node
        return np.where(kept, node_of_leaf[self.leaf], -1)

    def answer(self, groups: Sequence[tuple[int, Rows, Part]]) -> dict[str, Probabilities]:
        prototypes = np.array([self.ground.skeleton.hierarchy.centroid[node] for node, _, _ in groups])
        if self.ground.params.cluster.method == "random":
            prototypes = np.zeros_like(prototypes)
        model = self.served(groups, prototypes, self.ground)
        predictions = model.predict(self.ground.data.test.pixels)
        return {
            "served": predictions.served,
            "clusters_soft": predictions.clusters_soft,
            "clusters_hard": predictions.clusters_hard,
            "global_head": predictions.global_head,
        }

    def storage(self, parts: Sequence[Part]) -> int:
        head = self.ground.head
        return super().storage(parts) + head.weight.nbytes + self.ground.sums.gram.nbytes // 2


class Paper(Tuned):
    """Xu et al. 2024: private anchors, average linkage, prototypes of private means, hard routing."""

    replays = 10

    def __init__(self, name: str, ground: Ground) -> None:
        super().__init__(name, ground)
        self.passes = 1 + (1 if self.framed else 0)
        self.quantised = ground.skeleton.quantise(ground.features)
        names, unit = ground.units
        self.members = [
            Member(record.id, record.sha256, record.label, names[index], 0, "")
            for record, index in zip(ground.data.train.records, unit, strict=True)
        ]
        self.row_of = {identity: row for row, identity in enumerate(ground.ids)}

    def _cluster(self, kept: NDArray[np.bool_]) -> list[Cluster]:
        rows = np.flatnonzero(kept)
        slots = [str(rank) for rank in range(self.ground.params.cluster.k)]
        return cluster_by_anchors([self.members[row] for row in rows], self.quantised[rows], self.ground.params.cluster, slots)

    def partition(self, kept: NDArray[np.bool_]) -> Rows:
        group = np.full(len(kept), -1, dtype=np.int64)
        for cluster in self._cluster(kept):
            group[[self.row_of[member.id] for member in cluster.members]] = int(cluster.slot)
        return group

    def answer(self, groups: Sequence[tuple[int, Rows, Part]]) -> dict[str, Probabilities]:
        prototypes = {int(cluster.slot): cluster.prototype for cluster in self._cluster(np.ones(len(self.members), dtype=bool))}
        nearest_alone = replace(self.ground, params=changed(self.ground.params, {"serve.nearest": 1, "serve.mix": 1.0}))
        model = self.served(groups, np.array([prototypes[group] for group, _, _ in groups]), nearest_alone)
        return {"served": model.predict(self.ground.data.test.pixels).clusters_hard}


class Shards(Tuned):
    """A stable random division of the units and averaged answers: SISA (Bourtoule et al. 2021) over the frozen backbone."""

    def __init__(self, name: str, ground: Ground, shards: int) -> None:
        super().__init__(name, ground)
        self.shards = shards
        self.passes = float(shards) if self.framed else 1.0
        self.shard = ground.spread("shard", shards)

    def partition(self, kept: NDArray[np.bool_]) -> Rows:
        return np.where(kept, self.shard, -1)

    def answer(self, groups: Sequence[tuple[int, Rows, Part]]) -> dict[str, Probabilities]:
        ground = self.ground
        even = {"serve.nearest": len(groups), "serve.temperature": 1e12, "serve.size_weight": False, "serve.mix": 1.0}
        nowhere = np.zeros((len(groups), ground.features.shape[1]))
        model = self.served(groups, nowhere, replace(ground, params=changed(ground.params, even)))
        return {"served": model.predict(ground.data.test.pixels).clusters_soft}


def one_for_all(name: str, ground: Ground) -> Shards:
    """One prompt (or head) tuned on all private records: every deletion tunes it again."""
    return Shards(name, ground, 1)
