"""One trial: a preset played by halves of the public people, and every number of it."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.lab import pipeline as pipe
from bench.lab.changes import changed
from lmeraser.clusters.global_head import solve
from lmeraser.clusters.quantisation import squared_distances
from lmeraser.core.digest import number_from
from lmeraser.core.params import Params
from lmeraser.data.records import Record
from lmeraser.learn.backbone import Backbone
from lmeraser.serve.evaluation import accuracy
from lmeraser.serve.yardstick import PENALTIES, linear_head

GRID = list(
    itertools.product((0.0, 0.1, 0.25, 0.5, 0.75, 1.0), (3, 8, 32), (30.0, 100.0, 300.0, 3000.0))
)  # mix, nearest, temperature
RIDGES = (0.0001, 0.0003, 0.001, 0.003, 0.01)


def plays(public: pipe.Shelf, seed: int) -> Iterator[pipe.Data]:
    """Both ways round: one half public, the other half private with its own held-out people."""

    def half_of(record: Record) -> int:
        return number_from("half", seed, record.subject) % 2

    halves = [public.keep(lambda record: half_of(record) == 0), public.keep(lambda record: half_of(record) == 1)]
    for played_public, played_private in (halves, halves[::-1]):
        yield pipe.Data(
            played_public,
            played_private.keep(lambda record: not _held_out(record.subject)),
            played_private.keep(lambda record: _held_out(record.subject)),
        )


def _held_out(subject: str) -> bool:
    return number_from("held-out", subject) % 10 < 3


def score_one(data: pipe.Data, params: Params, backbone: Backbone) -> dict[str, float]:
    """Every number of one run by name."""
    frozen = pipe.freeze(backbone, data, params)
    members = pipe.make_members(frozen, data.train, params)
    clusters = pipe.make_clusters(members, frozen, params)
    models = pipe.tune_all(clusters, data.train, frozen, params)
    sums = pipe.make_sums(frozen, data.train, params)
    wide = changed(params, {"serve.nearest": len(clusters), "serve.temperature": 1e9, "serve.size_weight": False})
    model = pipe.serve(clusters, models, sums, frozen, wide)
    plain = backbone.features(data.test.pixels, params.embed.batch)
    quantised = frozen.skeleton.quantise(plain)
    truth = data.test.labels
    scores: dict[str, float] = {"clusters": len(clusters)}

    def note(name: str, probabilities: NDArray[np.float64]) -> None:
        scores[name] = accuracy(probabilities, model.labels, truth) or 0.0

    parts = np.stack(
        [model._cluster_probabilities(index, data.test.pixels, plain) for index in range(len(clusters))]
    )  # (m, n, k)
    note("clusters hard", parts[squared_distances(quantised, model.prototypes).argmin(1), np.arange(len(truth))])
    fourier = frozen.skeleton.fourier(quantised, params.projection.levels)
    for ridge in RIDGES:
        head = solve([sums], ridge, params.projection.levels)
        whole = model._spread(head.probabilities(fourier), head.labels)
        note(f"global head, ridge {ridge}", whole)
        for mix, nearest, temperature in GRID:
            serving = changed(params, {"serve.nearest": nearest, "serve.temperature": temperature})
            weight = replace(model, params=serving).routing_weights(quantised)
            soft = np.einsum("nm,mnk->nk", weight, parts)
            note(f"ridge {ridge}, mix {mix}, nearest {nearest}, temperature {temperature}", mix * soft + (1 - mix) * whole)
    standard = frozen.skeleton.standardise
    for penalty in PENALTIES:
        value = linear_head(standard(frozen.features), data.train.labels, standard(plain), truth, penalty)
        scores[f"linear head, penalty {penalty}"] = value or 0.0
    return scores


def best_by_mix(mean: dict[str, float]) -> list[str]:
    """The best two of each mix, so that a tie between mixes can be seen."""
    names = []
    for mix in sorted({mix for mix, _, _ in GRID}):
        inside = [name for name in mean if f"mix {mix}," in name]
        names += sorted(inside, key=lambda name: -mean[name])[:2]
    return names
