"""Accuracy and blast radius of each clustering, over one backbone a seed."""

import time
from collections.abc import Mapping
from typing import TypedDict

from bench.lab import pipeline as pipe
from bench.lab.changes import changed
from bench.people.blast import blast_by_anchors, blast_by_tree
from lmeraser.core.params import Params
from lmeraser.learn.backbone import Backbone
from lmeraser.serve.evaluation import accuracy
from lmeraser.serve.yardstick import PENALTIES, linear_head, penalty_for

YARDSTICK = "yardstick"
PARTS = ("served", "clusters_soft", "clusters_hard", "global_head")


class Variant(TypedDict):
    """One clustering. `blast`: see bench/people/blast.py; `tune_seconds`: wall time of all clusters."""

    accuracy: dict[str, float]
    blast: dict[str, float]
    clusters: int
    largest_share: float
    smallest: int
    tune_seconds: float


class Seed(TypedDict):
    pretrain_cpu_seconds: float
    linear: dict[str, float]
    variants: dict[str, Variant]


def yardsticks(frozen: pipe.Frozen, data: pipe.Data, params: Params) -> dict[str, float]:
    """Accuracy of the linear head by penalty, and under `yardstick` with the one that is pinned or chosen on public records."""
    standard = frozen.skeleton.standardise
    test = standard(frozen.backbone.features(data.test.pixels, params.embed.batch))
    train = standard(frozen.features)
    public = data.public
    chosen = penalty_for(
        params.evaluate.linear_penalty,
        public.records,
        lambda rows: standard(frozen.backbone.features(public.pixels[rows], params.embed.batch)),
    )
    scores = {str(p): linear_head(train, data.train.labels, test, data.test.labels, p) or 0.0 for p in {*PENALTIES, chosen}}
    return scores | {YARDSTICK: scores[str(chosen)], "penalty": chosen}


def one_variant(backbone: Backbone, data: pipe.Data, params: Params, sample: int) -> Variant:
    """Accuracy and blast radius of one clustering over a backbone that is already there."""
    frozen = pipe.freeze(backbone, data, params)
    members = pipe.make_members(frozen, data.train, params)
    clusters = pipe.make_clusters(members, frozen, params)
    start = time.perf_counter()
    models = pipe.tune_all(clusters, data.train, frozen, params)
    seconds = time.perf_counter() - start
    model = pipe.serve(clusters, models, pipe.make_sums(frozen, data.train, params), frozen, params)
    answers = model.predict(data.test.pixels)
    scores = {part: accuracy(getattr(answers, part), answers.labels, data.test.labels) or 0.0 for part in PARTS}
    if params.cluster.method != "anchors":
        blast = blast_by_tree(members, data.train, frozen, params)
    else:
        blast = blast_by_anchors(members, clusters, data.train, frozen, params, sample)
    sizes = [len(cluster.members) for cluster in clusters]
    return {
        "accuracy": scores,
        "blast": blast,
        "clusters": len(clusters),
        "largest_share": max(sizes) / len(members),
        "smallest": min(sizes),
        "tune_seconds": seconds,
    }


def one_seed(data: pipe.Data, params: Params, variants: Mapping[str, Mapping[str, object]], sample: int) -> Seed:
    start = time.process_time()
    backbone = pipe.make_backbone(data.public, params)
    seconds = time.process_time() - start
    return {
        "pretrain_cpu_seconds": seconds,
        "linear": yardsticks(pipe.freeze(backbone, data, params), data, params),
        "variants": {name: one_variant(backbone, data, changed(params, changes), sample) for name, changes in variants.items()},
    }
