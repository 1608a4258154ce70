"""Ours against what a user would pick instead: accuracy, cost of a deletion, storage and inference, on the same ground.

    python -m bench.compare cifar10              CIFAR-100 public, CIFAR-10 private; hours on two cores, see --peers
    python -m bench.compare signdigits           real people; also mnist, omniglot, and …-shift (a backbone of CIFAR-100)
    python -m bench.compare cifar10 --report     only write the tables of what was measured so far
    python -m bench.compare all                  one table over all data sets, from what was measured so far

Three seeds of everything that is random: backbone, projection, order, augmentation. Every peer's rebuild check trains groups of
the retained records anew after a deletion and compares bytes. What was measured is kept in bench/results/compare-DATA.json by
seed, peer and params, and is not measured again unless --fresh. Expect ours at or above the linear head on all private data, at a
hundredth of the cost of tuning again.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from bench import pipeline as pipe
from bench.choose import changed, read_changes
from bench.closed import CLOSED
from bench.compare_report import write_overview, write_tables
from bench.deletion import build, divide, rebuild_check, sample_costs
from bench.peers import Ground, Ours, Paper, Peer, Shards, one_for_all
from bench.presets import preset_of
from bench.report import RESULTS, provenance
from bench.sources import PACKS, source_of
from bench.whole import Whole
from lmeraser.core.digest import canonical_json, readable_json, sha256
from lmeraser.core.files import write_atomically
from lmeraser.core.params import Params
from lmeraser.serve.evaluation import accuracy

Maker = Callable[[Ground], Peer]
HEAD_ONLY = {"tune.frame_px": 0}
SIZES = [1, 10, 100]  # subjects at once; and one in a hundred


def ours(name: str, leaves: int, n_max: int, **changes: Any) -> tuple[str, Maker]:
    """Ours with the preset's clustering and a finer or coarser cut."""
    slots = {"slots": [f"c{number}" for number in range(leaves)], "skeleton.leaves": leaves, "cluster.n_max": n_max}
    return name, lambda ground: Ours(name, ground.with_params({**slots, **changes}))


def paper(name: str, k: int, **changes: Any) -> tuple[str, Maker]:
    slots = {"slots": [f"c{number}" for number in range(max(k, 64))], "cluster.k": k}
    return name, lambda ground: Paper(name, ground.with_params({"cluster.method": "anchors", **slots, **changes}))


def shards(name: str, count: int, **changes: Any) -> tuple[str, Maker]:
    return name, lambda ground: Shards(name, ground.with_params(changes), count)


def whole(name: str, count: int, slices: int = 1) -> tuple[str, Maker]:
    return name, lambda ground: Whole(name, ground, count, slices)


def alone(name: str, **changes: Any) -> tuple[str, Maker]:
    return name, lambda ground: one_for_all(name, ground.with_params(changes))


def images_contest() -> dict[str, Maker]:
    """CIFAR-10: every image may be asked to go; about 115 and about 500 clusters."""
    return dict(
        [
            ours("ours, 115 clusters, prompts", 1024, 700),
            ours("ours, 115 clusters, heads only", 1024, 700, **HEAD_ONLY),
            ours("ours, 500 clusters, prompts", 2048, 150),
            ours("ours, 500 clusters, heads only", 2048, 150, **HEAD_ONLY),
            paper("the paper's clustering, 115 clusters", 115),
            alone("one prompt for all"),
            shards("SISA over the frozen backbone, 115 shards, heads", 115, **HEAD_ONLY),
            shards("SISA over the frozen backbone, 500 shards, heads", 500, **HEAD_ONLY),
            whole("SISA, whole models, 115 shards", 115),
            whole("SISA, whole models, 115 shards, 4 slices", 115, 4),
            whole("full retraining", 1),
        ]
    )


def people_contest(params: Params) -> dict[str, Maker]:
    """People with several records each: the unit matters."""
    leaves, n_max, k = params.skeleton.leaves, params.cluster.n_max, 16
    record = {"cluster.unit": "record"}
    tree = {"cluster.method": "tree"}  # where the preset's is random: better informed, uneven, and dear to erase from
    trees = [ours("ours, tree", leaves, n_max, **tree), ours("ours, tree, heads only", leaves, n_max, **HEAD_ONLY, **tree)]
    return dict(
        [
            *(trees if params.cluster.method == "random" else []),
            ours("ours, unit subject", leaves, n_max),
            ours("ours, unit subject, heads only", leaves, n_max, **HEAD_ONLY),
            ours("ours, unit record", leaves, n_max, **record),
            shards(f"stable random subjects, {k} shards", k),
            shards(f"stable random subjects, {k} shards, heads", k, **HEAD_ONLY),
            paper(f"the paper's clustering, {k} clusters", k, **record),
            alone("one prompt for all"),
            whole(f"SISA, whole models, {k} shards", k),
            whole(f"SISA, whole models, {k} shards, 4 slices", k, 4),
            whole("full retraining", 1),
        ]
    )


def measure(peer: Peer, sizes: list[int], batches: int, compared: int) -> dict[str, Any]:
    """Everything about one peer on one ground."""
    ground, everybody = peer.ground, divide(peer)
    chains = everybody.chains()
    work = float(everybody.records.sum()) * peer.epochs
    parts, seconds = build(peer, list(chains.values()))
    made = list(zip(chains, (chain[-1] for chain in chains.values()), parts, strict=True))
    answers = {part: (found, ground.labels) for part, found in peer.answer(made).items()}
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


def scored(found: dict[str, Any], truth: list[str]) -> dict[str, Any]:
    """The answers, which are large, as accuracies."""
    answers = found.pop("answers")
    return found | {"accuracy": {part: accuracy(rows, known, truth) for part, (rows, known) in answers.items()}}


def made_by(preset: Params) -> str:
    """Digest of the params that a preset fixes for all seeds: what was measured with others is measured anew."""
    settings = preset.model_dump(mode="json", exclude={"seed", "source", "service", "slots"})
    return sha256(canonical_json(settings))


def measured(data_name: str, preset: Params) -> dict[str, Any]:
    """What is kept of a data set, but for results of other params."""
    kept = RESULTS / f"compare-{data_name}.json"
    told: dict[str, Any] = json.loads(kept.read_bytes())["results"] if kept.exists() else {"runs": []}
    digest = made_by(preset)
    return told | {"runs": [run for run in told["runs"] if run["params"] == digest]}


def contest(data_name: str, preset: Params, args: argparse.Namespace) -> None:
    """Measure what is missing, and keep it as soon as it is there."""
    kept = RESULTS / f"compare-{data_name}.json"
    told: dict[str, Any] = {"runs": []} if args.fresh else measured(data_name, preset)
    makers = peers_of(data_name, preset)
    wanted = [name for name in (*CLOSED, *makers) if not args.peers or any(part in name for part in args.peers)]
    open_runs = [
        (seed, name)
        for seed in args.seeds
        for name in wanted
        if not any(run["seed"] == seed and run["peer"] == name for run in told["runs"])
    ]
    if open_runs and not args.report:
        with source_of(preset) as located:
            data = pipe.read_data(located, pipe.ROOT)
        people = len({record.subject for record in data.train.records})
        told["counts"] = {"public": len(data.public.records), "train": len(data.train.records), "test": len(data.test.records),
                          "people": people}  # fmt: skip
        sizes = sorted({*SIZES, round(people / 100)} - {0})
        for seed in sorted({seed for seed, _ in open_runs}):
            ground = Ground.prepare(data, changed(preset, {"seed": seed}))
            for name in (name for one, name in open_runs if one == seed):
                start = time.monotonic()
                found = CLOSED[name](ground, sizes) if name in CLOSED else measure(makers[name](ground), sizes, 20, args.compared)
                run = {
                    "seed": seed,
                    "peer": name,
                    "params": made_by(preset),
                    "provenance": provenance(),
                    **scored(found, data.test.labels),
                }
                told["runs"].append(run)
                write_atomically(kept, readable_json(provenance() | {"results": told}))
                sys.stderr.write(f"seed {seed}, {name}: {time.monotonic() - start:.0f} s, {run['accuracy']}\n")
    write_tables(data_name, told, [*CLOSED, *makers], preset)


def peers_of(data_name: str, preset: Params) -> dict[str, Maker]:
    return images_contest() if data_name == "cifar10" else people_contest(preset)


def overview() -> None:
    """The table over all data sets, measured or not."""
    found = {}
    for data_name in PACKS:
        preset = preset_of(data_name)
        found[data_name] = (measured(data_name, preset), [*CLOSED, *peers_of(data_name, preset)], preset)
    write_overview(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--peers", nargs="*", default=[], help="only those whose names hold one of these")
    parser.add_argument("--compared", type=int, default=6, help="groups whose bytes the rebuild check compares")
    parser.add_argument("--change", nargs="*", default=[], help="params to change for this run, as section.key=value")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    args = parser.parse_args()
    if args.data == "all":
        overview()
    else:
        contest(args.data, changed(preset_of(args.data), read_changes(args.change)), args)


if __name__ == "__main__":
    main()
