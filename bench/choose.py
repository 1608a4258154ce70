"""Choose a preset's values on public people alone: nobody who may ask to be forgotten has a say in them.

    python -m bench.choose params/mnist.yaml --try "tune.frame_px=0" --try "tune.frame_px=4 projection.dim=2048"

Half a minute to three minutes of processor a trial; trials with the same backbone share it.

The public people are halved by a hash of their names. One half stays public (backbone, skeleton); the other plays the private
people, seven in ten for training and three for testing; then the halves change places. Two seeds, so four runs a trial. Prints
the mean accuracy of each part, and the served model's over a grid of `serve` and `head` values that cost
little to vary. The counts are
half of the real ones, so cluster.n_max is halved for the play. Private records, training or test, are never scored or seen.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bench import pipeline as pipe
from bench.sources import source_of
from lmeraser.clusters.global_head import solve
from lmeraser.clusters.quantisation import squared_distances
from lmeraser.core.digest import number_from
from lmeraser.core.params import Params, load_params
from lmeraser.learn.backbone import Backbone
from lmeraser.serve.evaluation import accuracy
from lmeraser.serve.yardstick import PENALTIES, linear_head

GRID = list(
    itertools.product((0.0, 0.1, 0.25, 0.5, 0.75, 1.0), (3, 8, 32), (30.0, 100.0, 300.0, 3000.0))
)  # mix, nearest, temperature
RIDGES = (0.0001, 0.0003, 0.001, 0.003, 0.01)


def changed(params: Params, changes: dict[str, Any]) -> Params:
    """Params with some values replaced, checked again. Args: changes: `section.key` or `key` to value."""
    raw = params.model_dump(mode="json")
    for name, value in changes.items():
        *path, key = name.split(".")
        section = raw
        for step in path:
            section = section[step]
        if key not in section:
            raise SystemExit(f"bench: unknown param {name}")
        section[key] = value
    return Params.model_validate(raw)


def read_changes(given: Iterable[str]) -> dict[str, Any]:
    """`section.key=value` as people write it on a command line."""
    return {key: yaml.safe_load(value) for key, value in (one.split("=", 1) for one in given)}


def plays(public: pipe.Shelf, seed: int) -> Iterator[pipe.Data]:
    """Both ways round: one half public, the other half private with its own held-out people."""
    for half in (0, 1):
        yield pipe.Data(
            public.keep(lambda record, half=half: number_from("half", seed, record.subject) % 2 == half),
            public.keep(lambda r, half=half: number_from("half", seed, r.subject) % 2 != half and not _held_out(r.subject)),
            public.keep(lambda r, half=half: number_from("half", seed, r.subject) % 2 != half and _held_out(r.subject)),
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
    found: dict[str, float] = {"clusters": len(clusters)}

    def note(name: str, probabilities: Any) -> None:
        found[name] = accuracy(probabilities, model.labels, truth) or 0.0

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
        found[f"linear head, penalty {penalty}"] = value or 0.0
    return found


def best_by_mix(mean: dict[str, float]) -> list[str]:
    """The best two of each mix, so that a tie between mixes can be seen."""
    names = []
    for mix in sorted({mix for mix, _, _ in GRID}):
        inside = [name for name in mean if f"mix {mix}," in name]
        names += sorted(inside, key=lambda name: -mean[name])[:2]
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", type=Path)
    parser.add_argument("--try", dest="trials", action="append", default=[], help="params to change, as section.key=value ...")
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    preset = load_params(args.preset)
    preset = changed(preset, {"cluster.n_max": max(1, preset.cluster.n_max // 2)})
    trials = {trial: read_changes(trial.split()) for trial in args.trials or [""]}
    runs: dict[str, list[dict[str, float]]] = {trial: [] for trial in trials}
    with source_of(preset) as located:
        public = pipe.read_data(located, pipe.ROOT).public
    for seed in range(args.seeds):
        for data in plays(public, seed):
            backbones: dict[str, Backbone] = {}
            for trial, changes in trials.items():
                params = changed(preset, {"seed": seed} | changes)
                key = params.pretrain.model_dump_json()
                if key not in backbones:
                    backbones[key] = pipe.make_backbone(data.public, params)
                runs[trial].append(score_one(data, params, backbones[key]))
    for trial, found in runs.items():
        mean = {name: float(np.mean([run[name] for run in found])) for name in found[0]}
        sys.stdout.write(f"\n{trial or 'the preset'}\n")
        for name in [*(name for name in mean if "mix" not in name), *best_by_mix(mean)]:
            sys.stdout.write(f"{mean[name]:.4f}  {name}\n")


if __name__ == "__main__":
    main()
