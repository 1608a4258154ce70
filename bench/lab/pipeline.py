"""The pipeline of dvc.yaml in one process, without files between the steps: for measuring many variants quickly.

Each function is what one stage does, by the same core functions. Private features are kept in memory (the stages never
store them), because several clusterings are compared over the same backbone.
"""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray

from bench.lab import ROOT
from lmeraser.clusters.assignment import cluster_by_tree
from lmeraser.clusters.files import Cluster, Member
from lmeraser.clusters.global_head import Rule, Sums, rule_of, solve
from lmeraser.clusters.skeleton import PublicFeatures, Skeleton, build_skeleton
from lmeraser.core.code import FOLDERS
from lmeraser.core.digest import canonical_json, part_of, sha256, sha256_of_file
from lmeraser.core.environment import fingerprint
from lmeraser.core.params import Params
from lmeraser.data.decoding import decode_all
from lmeraser.data.records import TEST, TRAIN, Record
from lmeraser.data.units import group_units, unit_of
from lmeraser.learn.anchors import cluster_by_anchors
from lmeraser.learn.backbone import Backbone, load_backbone, make_deterministic, save_backbone
from lmeraser.learn.cluster_model import ClusterModel
from lmeraser.learn.embedding import exact_sums, leaf_of_units
from lmeraser.learn.environment import network_environment
from lmeraser.learn.pretraining import pretrain_backbone
from lmeraser.learn.tuning import tune_cluster
from lmeraser.learn.weights import take_weights
from lmeraser.serve.serving import ServedModel
from lmeraser.sources import open_source
from lmeraser.sources.splitting import split_source

Pixels = NDArray[np.uint8]
Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Shelf:
    """Records sorted by id, and their pixels (n, s, s, c)."""

    records: list[Record]
    pixels: Pixels

    def keep(self, wanted: Callable[[Record], bool]) -> "Shelf":
        rows = [row for row, record in enumerate(self.records) if wanted(record)]
        return Shelf([self.records[row] for row in rows], self.pixels[rows])

    @property
    def labels(self) -> list[str]:
        return [record.label for record in self.records]


@dataclass(frozen=True)
class Data:
    public: Shelf  # training records alone: nothing reads public test records
    train: Shelf  # private
    test: Shelf  # private


def read_data(params: Params, root: Path) -> Data:
    """What `split` does. Relative paths of the source start at `root`."""
    split_records = split_source(open_source(params.source, root), lambda _: False, len(params.parts), params.image.max_pixels)
    private = [pair for part in split_records.private for pair in part]

    def shelf(pairs: Sequence[tuple[Record, bytes]], split: str) -> Shelf:
        chosen = sorted(pair for pair in pairs if pair[0].split == split)
        return Shelf([record for record, _ in chosen], decode_all([image for _, image in chosen], params, split))

    return Data(shelf(split_records.public, TRAIN), shelf(private, TRAIN), shelf(private, TEST))


def _pretrain(path: Path, public: Shelf, params: Params) -> None:
    """What `pretrain` does."""
    make_deterministic(params.device)
    if params.pretrain.weights:
        taken = take_weights(params, ROOT)
        save_backbone(path, taken.model, taken.mean, taken.std, params, taken.resampled)
        return
    model, mean, std = pretrain_backbone([record.id for record in public.records], public.pixels, public.labels, params)
    save_backbone(path, model, mean, std, params)


def make_backbone(public: Shelf, params: Params) -> Backbone:
    """A backbone made anew, through the file that `pretrain` writes; of given weights no record has a say in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "backbone.safetensors"
        _pretrain(path, public, params)
        return load_backbone(path, params)


def pretraining_code() -> list[Path]:
    """The files that can move a backbone's bytes, as dvc.yaml lists them for `pretrain`."""
    deps: list[str] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["pretrain"]["deps"]
    return [ROOT / dep for dep in deps if dep.startswith(FOLDERS)]


def backbone_file(public: Shelf, params: Params) -> Path:
    """The backbone's file, kept in .bench/ by all that decides its weights: several benches measure over the same one."""
    code = [sha256_of_file(path) for path in pretraining_code()]
    settings = [params.pretrain.model_dump(mode="json"), params.image.model_dump(mode="json"), params.seed, params.device]
    made_of = [*code, fingerprint(network_environment(params.device)), settings, [record.id for record in public.records]]
    path = ROOT / ".bench" / f"backbone-{sha256(canonical_json(made_of))[:24]}.safetensors"
    make_deterministic(params.device)  # also for whoever finds it there
    if not path.exists():
        _pretrain(path, public, params)
    return path


@dataclass(frozen=True)
class Frozen:
    """Backbone, skeleton and the features (float32, as the backbone gives them) of private training records."""

    backbone: Backbone
    skeleton: Skeleton
    features: NDArray[np.float32]


def public_features(
    rows: NDArray[np.float32], records: Sequence[Record], widths: tuple[int, ...], params: Params
) -> PublicFeatures:
    """What `skeleton` hands on. Args: rows: (n, w) of the n public training records; widths: of the backbone's depths."""
    unit = group_units(records, params.cluster.unit)[1]
    return PublicFeatures(rows, widths, unit, [record.label for record in records], [record.subject for record in records])


def rule_for(skeleton: Skeleton, params: Params) -> Rule:
    """How the global head is solved over a skeleton."""
    return rule_of(params, skeleton.step, skeleton.chosen)


def freeze(backbone: Backbone, data: Data, params: Params) -> Frozen:
    public = backbone.features(data.public.pixels, params.embed.batch)
    skeleton = build_skeleton(public_features(public, data.public.records, backbone.widths, params), params)
    return Frozen(backbone, skeleton, backbone.features(data.train.pixels, params.embed.batch))


def make_members(frozen: Frozen, train: Shelf, params: Params) -> list[Member]:
    """What `embed` says of the private training records, in their order."""
    units, index = group_units(train.records, params.cluster.unit)
    quantised = frozen.skeleton.quantise(frozen.features)
    leaf = leaf_of_units(units, quantised, index, frozen.skeleton.hierarchy, params.cluster.method)[index]
    return [
        Member(record.id, record.sha256, record.label, unit_of(record, params.cluster.unit), int(place), _part(record, params))
        for record, place in zip(train.records, leaf, strict=True)
    ]


def _part(record: Record, params: Params) -> str:
    return params.parts[part_of(record.subject, len(params.parts))]


def make_sums(frozen: Frozen, train: Shelf, params: Params) -> Sums:
    """The exact sums over all parts in one (whole numbers: the same as part by part)."""
    return exact_sums(frozen.skeleton.summand(frozen.skeleton.quantise(frozen.features), params.projection.levels), train.labels)


def make_clusters(members: Sequence[Member], frozen: Frozen, params: Params) -> list[Cluster]:
    """What `cluster` does; members in the order of the features."""
    if params.cluster.method == "anchors":
        return cluster_by_anchors(members, frozen.skeleton.quantise(frozen.features), params.cluster, params.slots)
    return cluster_by_tree(members, frozen.skeleton.hierarchy, params.cluster, params.slots)


_inherited: dict[str, Callable[[Any], Any]] = {}  # forked workers find their work here: nothing is pickled on the way in


def _run(item: Any) -> Any:
    return _inherited["work"](item)


def side_by_side(work: Callable[[Item], Made], items: Sequence[Item]) -> list[Made]:
    """Do some work in single-thread processes, one a core; results in the order of the items."""
    _inherited["work"] = work
    with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
        return pool.map(_run, items, chunksize=1)


def tune_all(clusters: Sequence[Cluster], train: Shelf, frozen: Frozen, params: Params) -> list[ClusterModel]:
    """What `tune` does for every slot."""
    row_of = {record.id: row for row, record in enumerate(train.records)}

    def work(cluster: Cluster) -> ClusterModel:
        rows = [row_of[member.id] for member in cluster.members]
        labels = [member.label for member in cluster.members]
        ids = [member.id for member in cluster.members]
        return tune_cluster(ids, train.pixels[rows], labels, frozen.backbone, frozen.skeleton, params, cluster.slot)

    return side_by_side(work, clusters)


def serve(clusters: Sequence[Cluster], models: Sequence[ClusterModel], sums: Sums, frozen: Frozen, params: Params) -> ServedModel:
    """What `head` and the loading of the served model do."""
    return ServedModel(
        params,
        frozen.backbone,
        frozen.skeleton,
        np.array([cluster.prototype for cluster in clusters]),
        [cluster.slot for cluster in clusters],
        list(models),
        np.array([len(cluster.members) for cluster in clusters], dtype=np.float64),
        solve([sums], rule_for(frozen.skeleton, params)),
    )
