"""Choose a preset's values on public people alone: nobody who may ask to be forgotten has a say in them.

    python -m bench.choose params/mnist.yaml --try "tune.frame_px=0" --try "tune.frame_px=4 projection.dim=2048"
    python -m bench.choose params/efficientnet-lite0.yaml --data signdigits --try "features.grid=1" --try "features.depths=[]"

Trials with the same backbone share it.

The public people are halved by a hash of their names. One half stays public (backbone, skeleton); the other plays the private
people, seven in ten for training and three for testing; then the halves change places. Two seeds, so four runs a trial. Prints
the mean accuracy of each part, and the served model's over a grid of `serve` and `head` values that cost little to vary: ridges,
or shrinkages and evennesses of a discriminant with the temperature under which each pair has the least log-loss. With tune.kind
none there are no clusters and no mixes. The counts are half of the real ones, so cluster.n_max (and, with tune.kind none,
skeleton.leaves, which then decide nothing) are halved for the play. Private records, training or test, are never scored or seen.

Takes: half a minute to three minutes of processor a trial.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.choose.trials import halved, plays, score_one, shown
from bench.lab import ROOT
from bench.lab import pipeline as pipe
from bench.lab.changes import changed, read_changes
from bench.lab.commands import bench_parser
from bench.lab.presets import with_weights
from bench.lab.sources import PACKS, source_of
from lmeraser.core.params import load_params
from lmeraser.learn.backbone import Backbone


def main(arguments: Sequence[str] | None = None) -> None:
    parser = bench_parser("choose", __doc__)
    parser.add_argument("preset", type=Path)
    parser.add_argument("--try", dest="trials", action="append", default=[], help="params to change, as section.key=value ...")
    parser.add_argument("--data", choices=PACKS, help="whose people: for a preset that names none of the benches' image packs")
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args(arguments)
    preset = halved(with_weights(load_params(args.preset)))
    if args.data:
        preset = changed(preset, {"source.path": f"/path/to/{args.data}"})
    trials = {trial: read_changes(trial.split()) for trial in args.trials or [""]}
    runs: dict[str, list[dict[str, float]]] = {trial: [] for trial in trials}
    with source_of(preset) as located:
        public = pipe.read_data(located, ROOT).public
    for seed in range(args.seeds):
        for data in plays(public, seed):
            backbones: dict[str, Backbone] = {}
            for trial, changes in trials.items():
                params = changed(preset, {"seed": seed} | changes)
                key = f"{params.pretrain} {params.features} {params.image}"
                if key not in backbones:
                    backbones[key] = pipe.make_backbone(data.public, params)
                runs[trial].append(score_one(data, params, backbones[key]))
    for trial, trial_runs in runs.items():
        mean = {name: float(np.mean([run[name] for run in trial_runs])) for name in trial_runs[0]}
        sys.stdout.write(f"\n{trial or 'the preset'}\n")
        for name in shown(mean):
            sys.stdout.write(f"{mean[name]:.4f}  {name}\n")


if __name__ == "__main__":
    main()
