"""One trial: a preset played by halves of the public people, and every number of it."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.lab import pipeline as pipe
from bench.lab.changes import changed
from lmeraser.clusters.discriminant import EVENNESSES, SHRINKAGES, TEMPERATURES, Chosen
from lmeraser.clusters.global_head import GlobalHead, Sums, solve
from lmeraser.clusters.quantisation import Integers, squared_distances
from lmeraser.core.digest import number_from
from lmeraser.core.params import Params
from lmeraser.data.records import Record
from lmeraser.learn.backbone import Backbone
from lmeraser.serve.evaluation import accuracy, log_loss
from lmeraser.serve.serving import Passes, ServedModel
from lmeraser.serve.yardstick import PENALTIES, linear_head

GRID = list(
    itertools.product((0.0, 0.1, 0.25, 0.5, 0.75, 1.0), (3, 8, 32), (30.0, 100.0, 300.0, 3000.0))
)  # mix, nearest, temperature
RIDGES = (0.0001, 0.0003, 0.001, 0.003, 0.01)
SOLVES = list(itertools.product(SHRINKAGES, EVENNESSES))
LOSS = "log-loss"


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


def halved(preset: Params) -> Params:
    """The preset for half the people; without clusters the leaves decide nothing, and half the people may be too few for them."""
    changes = {"cluster.n_max": max(1, preset.cluster.n_max // 2)}
    if preset.tune.kind == "none":
        changes["skeleton.leaves"] = max(1, preset.skeleton.leaves // 2)
    return changed(preset, changes)


def _held_out(subject: str) -> bool:
    return number_from("held-out", subject) % 10 < 3


def heads_of(frozen: pipe.Frozen, sums: Sums, params: Params) -> Iterator[tuple[str, GlobalHead]]:
    """The global head under each value that it may be solved with, by name."""
    rule = pipe.rule_for(frozen.skeleton, params)
    if params.head.kind == "discriminant":
        for shrinkage, evenness in SOLVES:
            chosen = Chosen(shrinkage, evenness, 1.0)  # the head then has what its temperature grows with
            yield f"shrinkage {shrinkage}, evenness {evenness}", solve([sums], replace(rule, chosen=chosen))
    else:
        for ridge in RIDGES:
            yield f"ridge {ridge}", solve([sums], replace(rule, head=rule.head.model_copy(update={"ridge": ridge})))


def score_one(data: pipe.Data, params: Params, backbone: Backbone) -> dict[str, float]:
    """Every number of one run by name: accuracies, and log-losses whose names begin with LOSS."""
    frozen = pipe.freeze(backbone, data, params)
    sums = pipe.make_sums(frozen, data.train, params)
    plain = backbone.features(data.test.pixels, params.embed.batch)
    quantised = frozen.skeleton.quantise(plain)
    summands = frozen.skeleton.summand(quantised, params.projection.levels)
    truth = data.test.labels
    mixer = Mixer.tuned(data, frozen, sums, params, quantised) if params.tune.kind == "sgd" else None
    scores: dict[str, float] = mixer.scores() if mixer else {"clusters": 0}
    for name, head in heads_of(frozen, sums, params):
        whole = head.probabilities(summands)
        scores[f"global head, {name}"] = accuracy(whole, head.labels, truth) or 0.0
        if head.temperature is not None:
            for temperature in TEMPERATURES:
                shares = replace(head, temperature=temperature * head.temperature).probabilities(summands)
                scores[f"{LOSS}, {name}, temperature {temperature:.3g}"] = log_loss(shares, head.labels, truth) or 0.0
        if mixer:
            scores |= {f"{name}, {place}": value for place, value in mixer.mixes(whole, head.labels).items()}
    standard = frozen.skeleton.standardise
    for penalty in PENALTIES:
        value = linear_head(standard(frozen.features), data.train.labels, standard(plain), truth, penalty)
        scores[f"linear head, penalty {penalty}"] = value or 0.0
    return scores


@dataclass(frozen=True)
class Mixer:
    """Tuned clusters, and what they answer to the test images.

    Attributes: parts: (m, n, k) probabilities of each of m clusters; quantised: (n, d) of the images.
    """

    model: ServedModel
    parts: NDArray[np.float64]
    quantised: Integers
    truth: list[str]

    @classmethod
    def tuned(cls, data: pipe.Data, frozen: pipe.Frozen, sums: Sums, params: Params, quantised: Integers) -> "Mixer":
        members = pipe.make_members(frozen, data.train, params)
        clusters = pipe.make_clusters(members, frozen, params)
        models = pipe.tune_all(clusters, data.train, frozen, params)
        wide = changed(params, {"serve.nearest": len(clusters), "serve.temperature": 1e9, "serve.size_weight": False})
        model = pipe.serve(clusters, models, sums, frozen, wide)
        looks = Passes(model.backbone, params.embed.batch, data.test.pixels)
        everybody = np.arange(len(data.test.pixels))
        parts = [answers for _, answers in model.ask(looks, dict.fromkeys(range(len(clusters)), everybody))]
        return cls(model, np.stack(parts), quantised, data.test.labels)

    def _right(self, probabilities: NDArray[np.float64]) -> float:
        return accuracy(probabilities, self.model.labels, self.truth) or 0.0

    def scores(self) -> dict[str, float]:
        """The clusters alone."""
        nearest = squared_distances(self.quantised, self.model.prototypes).argmin(1)
        hard = self._right(self.parts[nearest, np.arange(len(self.truth))])
        return {"clusters": len(self.parts), "clusters hard": hard}

    def mixes(self, whole: NDArray[np.float64], labels: list[str]) -> dict[str, float]:
        """Accuracy over GRID. Args: whole: (n, k) of the global head; labels: its own."""
        spread = self.model._spread(whole, labels)
        values = {}
        for mix, nearest, temperature in GRID:
            serving = changed(self.model.params, {"serve.nearest": nearest, "serve.temperature": temperature})
            weight = replace(self.model, params=serving).routing_weights(self.quantised)
            soft = np.einsum("nm,mnk->nk", weight, self.parts)
            values[f"mix {mix}, nearest {nearest}, temperature {temperature}"] = self._right(mix * soft + (1 - mix) * spread)
        return values


def shown(mean: dict[str, float]) -> list[str]:
    """The names to print: what is neither a mix nor a loss, the least loss of each solve, the best of each mix."""
    plain = [name for name in mean if "mix " not in name and not name.startswith(LOSS)]
    return [*plain, *_least_by_solve(mean), *best_by_mix(mean)]


def _least_by_solve(mean: dict[str, float]) -> list[str]:
    names = []
    for shrinkage, evenness in SOLVES:
        inside = [name for name in mean if name.startswith(f"{LOSS}, shrinkage {shrinkage}, evenness {evenness}, ")]
        names += sorted(inside, key=lambda name: mean[name])[:1]
    return names


def best_by_mix(mean: dict[str, float]) -> list[str]:
    """The best two of each mix, so that a tie between mixes can be seen."""
    names = []
    for mix in sorted({mix for mix, _, _ in GRID}):
        inside = [name for name in mean if f"mix {mix}," in name]
        names += sorted(inside, key=lambda name: -mean[name])[:2]
    return names
