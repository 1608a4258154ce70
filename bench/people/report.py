"""The tables of `bench.people`."""

import statistics
from collections.abc import Sequence

from bench.lab.report import table, write_report
from bench.people.measure import PARTS, YARDSTICK, Seed, Variant
from lmeraser.core.params import Params


def mean_of(values: list[float]) -> str:
    """Mean, and the range over the seeds."""
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def accuracy_rows(runs: Sequence[Seed]) -> list[list[str]]:
    default = [run["linear"][YARDSTICK] for run in runs]
    best = [max(value for name, value in run["linear"].items() if name != "penalty") for run in runs]
    penalties = ", ".join(sorted({f"{run['linear']['penalty']:g}" for run in runs}))
    rows = [
        [f"linear head on all private data, penalty {penalties}", *[""] * 3, mean_of(default)],
        ["the same, best penalty on the test records", *[""] * 3, mean_of(best)],
    ]
    for name in runs[0]["variants"]:
        scores = [run["variants"][name]["accuracy"] for run in runs]
        parts = [mean_of([score[part] for score in scores]) for part in (*PARTS[1:], PARTS[0])]
        rows.append([name, *parts])
    return rows


def blast_rows(runs: Sequence[Seed]) -> list[list[str]]:
    rows = []
    for name in runs[0]["variants"]:
        variants = [run["variants"][name] for run in runs]

        def middle(key: str, variants: Sequence[Variant] = variants) -> float:
            return statistics.mean([float(variant["blast"][key]) for variant in variants])

        rows.append(
            [
                name,
                f"{statistics.mean(variant['clusters'] for variant in variants):.1f}",
                f"{middle('clusters_mean'):.2f} ({max(variant['blast']['clusters_max'] for variant in variants):.0f})",
                f"{middle('share_mean'):.3f}",
                f"{middle('share_p95'):.3f}",
                f"{middle('cut_changes'):.3f}",
                f"{statistics.mean(variant['largest_share'] for variant in variants):.3f}",
                f"{middle('people'):.0f}",
            ]
        )
    return rows


def report(data_name: str, runs: Sequence[Seed], counts: dict[str, int], params: Params) -> None:
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
