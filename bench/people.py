"""Quality and blast radius over people: what the served model can do, and what it costs when one person leaves.

    python -m bench.people digits        about 2 minutes of processor
    python -m bench.people signdigits    about 6 minutes
    python -m bench.people mnist         about 12 minutes

Three seeds (the params' root seed; who is public is fixed by the source). The whole pipeline in process, without DVC, on
params.yaml (digits) or params/DATA.yaml. Yardstick: one linear head on all private data over the same frozen features, with the
penalty that the params pin or that public records choose; and, as the best that it could have been, with the best of PENALTIES
*on the test records*: that one is flattered.
Expect served accuracy at or above the linear head's, one cluster retrained per person with unit subject, many with unit
record, and nearly all with the paper's anchors.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from bench import pipeline as pipe
from bench.blast import blast_by_anchors, blast_by_tree
from bench.choose import changed, read_changes
from bench.presets import preset_of
from bench.report import table, write_report
from bench.sources import source_of
from lmeraser.core.params import Params
from lmeraser.learn.backbone import Backbone
from lmeraser.serve.evaluation import accuracy
from lmeraser.serve.yardstick import PENALTIES, linear_head, penalty_for

YARDSTICK = "yardstick"
PARTS = ("served", "clusters_soft", "clusters_hard", "global_head")
VARIANTS: dict[str, dict[str, Any]] = {
    "tree, unit subject": {"cluster.method": "tree", "cluster.unit": "subject"},
    "tree, unit record": {"cluster.method": "tree", "cluster.unit": "record"},
    "anchors, unit record (paper)": {"cluster.method": "anchors", "cluster.unit": "record"},
}
DIVERSITY = (0.5, 0.35, 0.2)  # cuts by diversity, beside the one by counts


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
    found = {str(p): linear_head(train, data.train.labels, test, data.test.labels, p) or 0.0 for p in {*PENALTIES, chosen}}
    return found | {YARDSTICK: found[str(chosen)], "penalty": chosen}


def one_variant(backbone: Backbone, data: pipe.Data, params: Params, sample: int) -> dict[str, Any]:
    """Accuracy and blast radius of one clustering over a backbone that is already there."""
    frozen = pipe.freeze(backbone, data, params)
    members = pipe.make_members(frozen, data.train, params)
    clusters = pipe.make_clusters(members, frozen, params)
    start = time.perf_counter()
    models = pipe.tune_all(clusters, data.train, frozen, params)
    seconds = time.perf_counter() - start
    model = pipe.serve(clusters, models, pipe.make_sums(frozen, data.train, params), frozen, params)
    answers = model.predict(data.test.pixels)
    scores = {part: accuracy(getattr(answers, part), answers.labels, data.test.labels) for part in PARTS}
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


def one_seed(data: pipe.Data, params: Params, variants: dict[str, dict[str, Any]], sample: int) -> dict[str, Any]:
    start = time.process_time()
    backbone = pipe.make_backbone(data.public, params)
    seconds = time.process_time() - start
    return {
        "pretrain_cpu_seconds": seconds,
        "linear": yardsticks(pipe.freeze(backbone, data, params), data, params),
        "variants": {name: one_variant(backbone, data, changed(params, changes), sample) for name, changes in variants.items()},
    }


def mean_of(values: list[float]) -> str:
    """Mean, and the range over the seeds."""
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def accuracy_rows(runs: list[dict[str, Any]]) -> list[list[str]]:
    default = [run["linear"][YARDSTICK] for run in runs]
    best = [max(value for name, value in run["linear"].items() if name != "penalty") for run in runs]
    told = ", ".join(sorted({f"{run['linear']['penalty']:g}" for run in runs}))
    rows = [
        [f"linear head on all private data, penalty {told}", *[""] * 3, mean_of(default)],
        ["the same, best penalty on the test records", *[""] * 3, mean_of(best)],
    ]
    for name in runs[0]["variants"]:
        scores = [run["variants"][name]["accuracy"] for run in runs]
        parts = [mean_of([score[part] for score in scores]) for part in (*PARTS[1:], PARTS[0])]
        rows.append([name, *parts])
    return rows


def blast_rows(runs: list[dict[str, Any]]) -> list[list[str]]:
    rows = []
    for name in runs[0]["variants"]:
        found = [run["variants"][name] for run in runs]

        def middle(key: str, found: list[dict[str, Any]] = found) -> float:
            return statistics.mean(one["blast"][key] for one in found)

        rows.append(
            [
                name,
                f"{statistics.mean(one['clusters'] for one in found):.1f}",
                f"{middle('clusters_mean'):.2f} ({max(one['blast']['clusters_max'] for one in found):.0f})",
                f"{middle('share_mean'):.3f}",
                f"{middle('share_p95'):.3f}",
                f"{middle('cut_changes'):.3f}",
                f"{statistics.mean(one['largest_share'] for one in found):.3f}",
                f"{middle('people'):.0f}",
            ]
        )
    return rows


def report(data_name: str, runs: list[dict[str, Any]], counts: dict[str, int], params: Params) -> None:
    columns = ["clustering", "clusters soft", "clusters hard", "global head", "served"]
    cost = [
        "clustering",
        "clusters",
        "retrained per person, mean (max)",
        "share of records, mean",
        "p95",
        "cut changes",
        "largest",
        "people",
    ]
    served = statistics.mean(run["variants"]["tree, unit subject"]["accuracy"]["served"] for run in runs)
    linear = statistics.mean(run["linear"][YARDSTICK] for run in runs)
    verdict = "not below it" if served >= linear else "BELOW it: the requirement is not met"
    records = counts["test"] * len(runs)
    body = [
        f"{counts['public']} public, {counts['train']} private training and {counts['test']} private test records of "
        f"{counts['people']} private people; {len(runs)} seeds; mean (least to greatest).",
        f"Served accuracy {served:.4f} against {linear:.4f} of a linear head on all private data: {verdict} "
        f"({round((served - linear) * records):+d} of {records} answers over the seeds).",
        table(columns, accuracy_rows(runs)),
        "One person leaves, the others stay (`cut changes`: share of people whose leaving moves the cut; for anchors, share "
        "whose leaving changes how many clusters there are). Share of records: private training records in the clusters that "
        "retrain. Anchors: the clustering was replayed for a sample of people and member sets compared.",
        table(cost, blast_rows(runs)),
        f"Pretraining took {statistics.mean(run['pretrain_cpu_seconds'] for run in runs):.0f} s of processor.",
    ]
    write_report(
        f"people-{data_name}",
        f"People: {data_name}",
        body,
        {"seeds": runs, "counts": counts, "params": params.model_dump(mode="json")},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["digits", "signdigits", "mnist", "omniglot"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=20, help="people whose leaving is replayed with the paper's clustering")
    parser.add_argument(
        "--diversity", action="store_true", help="cuts by diversity against the cut by counts, instead of the variants"
    )
    parser.add_argument("--change", nargs="*", default=[], help="params to change for this run, as section.key=value")
    args = parser.parse_args()
    variants, name = dict(VARIANTS), args.data
    preset = preset_of(args.data)
    preset = changed(preset, read_changes(args.change))
    if args.change:
        name += "-" + "-".join(one.replace("=", "") for one in sorted(args.change))
    if args.diversity:
        name += "-diversity"
        variants = {key: value for key, value in VARIANTS.items() if value["cluster.unit"] == "subject"}
        free = {"cluster.n_max": 10**9, "cluster.method": "tree", "cluster.unit": "subject"}
        variants |= {f"tree by diversity {limit}, no n_max": free | {"cluster.max_diversity": limit} for limit in DIVERSITY}
    with source_of(preset) as params:
        data = pipe.read_data(params, Path(pipe.ROOT))
    runs = []
    for seed in range(args.seeds):
        runs.append(one_seed(data, changed(params, {"seed": seed}), variants, args.sample))
        sys.stderr.write(f"seed {seed} done\n")
    people = {record.subject for record in (*data.train.records, *data.test.records)}
    counts = {"public": len(data.public.records), "train": len(data.train.records), "test": len(data.test.records)}
    report(name, runs, counts | {"people": len(people)}, preset)


if __name__ == "__main__":
    main()
