"""Measure every peer over every seed, and keep what was measured as soon as it is there."""

import argparse
import json
import sys
import time

from bench.compare.closed import CLOSED
from bench.compare.contestants import peers_of
from bench.compare.deletion import build, divide, rebuild_check, sample_costs
from bench.compare.peers import Ground, Peer
from bench.compare.report import write_overview, write_tables
from bench.compare.results import Contest, Measured, Run
from bench.lab import RESULTS, ROOT
from bench.lab import pipeline as pipe
from bench.lab.changes import changed
from bench.lab.presets import preset_of
from bench.lab.report import provenance
from bench.lab.sources import PACKS, source_of
from lmeraser.core.digest import canonical_json, readable_json, sha256
from lmeraser.core.files import write_atomically
from lmeraser.core.params import Params
from lmeraser.serve.evaluation import accuracy

SIZES = [1, 10, 100]  # subjects at once; and one in a hundred


def measure(peer: Peer, sizes: list[int], batches: int, compared: int) -> Measured:
    """Everything about one peer on one ground."""
    ground, everybody = peer.ground, divide(peer)
    chains = everybody.chains()
    work = float(everybody.records.sum()) * peer.epochs
    parts, seconds = build(peer, list(chains.values()))
    made = list(zip(chains, (chain[-1] for chain in chains.values()), parts, strict=True))
    answers = {part: (probabilities, ground.labels) for part, probabilities in peer.answer(made).items()}
    costs = sample_costs(peer, everybody, sizes, batches, ground.params.seed)
    per_work = seconds / work
    return {
        "answers": answers,
        "groups": len(parts),
        "largest": int(everybody.records[:, -1].max()),
        "passes": peer.passes,
        "storage": peer.storage(parts),
        "fit_seconds": seconds,
        "fit_work": work,
        "deletion": costs,
        "deletion_seconds": {size: {k: v * per_work for k, v in row.items() if k != "drawn"} for size, row in costs.items()},
        "rebuild": rebuild_check(peer, everybody, dict(zip(chains, parts, strict=True)), 3, compared, ground.params.seed),
    }


def run_of(peer: str, seed: int, digest: str, measured_peer: Measured, truth: list[str]) -> Run:
    """What is kept of a measurement. Args: digest: of the preset's params, see `made_by`; truth: labels of the test records."""
    answers = measured_peer["answers"]
    return {
        "seed": seed,
        "peer": peer,
        "params": digest,
        "provenance": provenance(),
        "accuracy": {part: accuracy(probabilities, known, truth) for part, (probabilities, known) in answers.items()},
        "groups": measured_peer["groups"],
        "largest": measured_peer["largest"],
        "passes": measured_peer["passes"],
        "storage": measured_peer["storage"],
        "fit_seconds": measured_peer["fit_seconds"],
        "fit_work": measured_peer["fit_work"],
        "deletion": measured_peer["deletion"],
        "deletion_seconds": measured_peer["deletion_seconds"],
        "rebuild": measured_peer["rebuild"],
    }


def made_by(preset: Params) -> str:
    """Digest of the params that a preset fixes for all seeds: what was measured with others is measured anew."""
    settings = preset.model_dump(mode="json", exclude={"seed", "source", "service", "slots"})
    return sha256(canonical_json(settings))


def measured(data_name: str, preset: Params) -> Contest:
    """What is kept of a data set, but for results of other params."""
    kept = RESULTS / f"compare-{data_name}.json"
    results: Contest = json.loads(kept.read_bytes())["results"] if kept.exists() else {"runs": []}
    digest = made_by(preset)
    results["runs"] = [run for run in results["runs"] if run["params"] == digest]
    return results


def contest(data_name: str, preset: Params, args: argparse.Namespace) -> None:
    """Measure what is missing, and keep it as soon as it is there."""
    kept = RESULTS / f"compare-{data_name}.json"
    results: Contest = {"runs": []} if args.fresh else measured(data_name, preset)
    makers = peers_of(data_name, preset)
    wanted = [name for name in (*CLOSED, *makers) if not args.peers or any(part in name for part in args.peers)]
    open_runs = [
        (seed, name)
        for seed in args.seeds
        for name in wanted
        if not any(run["seed"] == seed and run["peer"] == name for run in results["runs"])
    ]
    if open_runs and not args.report:
        with source_of(preset) as located:
            data = pipe.read_data(located, ROOT)
        people = len({record.subject for record in data.train.records})
        results["counts"] = {"public": len(data.public.records), "train": len(data.train.records), "test": len(data.test.records),
                          "people": people}  # fmt: skip
        sizes = sorted({*SIZES, round(people / 100)} - {0})
        for seed in sorted({seed for seed, _ in open_runs}):
            ground = Ground.prepare(data, changed(preset, {"seed": seed}))
            for name in (name for open_seed, name in open_runs if open_seed == seed):
                start = time.monotonic()
                closed = CLOSED.get(name)
                peer = closed(ground, sizes) if closed else measure(makers[name](ground), sizes, 20, args.compared)
                run = run_of(name, seed, made_by(preset), peer, data.test.labels)
                results["runs"].append(run)
                write_atomically(kept, readable_json({**provenance(), "results": results}))
                sys.stderr.write(f"seed {seed}, {name}: {time.monotonic() - start:.0f} s, {run['accuracy']}\n")
    write_tables(data_name, results, [*CLOSED, *makers], preset)


def overview() -> None:
    """The table over all data sets, measured or not."""
    contests = {}
    for data_name in PACKS:
        preset = preset_of(data_name)
        contests[data_name] = (measured(data_name, preset), [*CLOSED, *peers_of(data_name, preset)], preset)
    write_overview(contests)
