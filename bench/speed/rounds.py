"""Interleaved rounds of every contender, and what they come to."""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import asdict

from bench.speed.jobs import CLUSTERS, EMBEDDINGS, PRODUCTS, ROUTINGS, SIDE, fresh_model, lab_params
from bench.speed.report import QUIET, SQUARE, Summary
from bench.speed.team import CORES, Spent, Team, wait_for_quiet

CONTENDERS = ("ours", "plain_processes", "plain_threads")
PASSES = ("embed", "route")


def flops_per_image(batch: int) -> float:
    """Forward and backward to the input: what a step with a frozen backbone must compute (torch.utils.flop_counter)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = fresh_model(lab_params(batch, 1)).requires_grad_(False)
    images = torch.zeros(batch, 3, SIDE, SIDE, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    total: int = counter.get_total_flops()
    return total / batch


def measure(args: argparse.Namespace) -> Summary:
    """Interleaved rounds of every contender, each doing the same number of images."""
    teams = {
        "ours": Team("ours", CORES, 1, args),
        "plain_processes": Team("plain", CORES, 1, args),
        "plain_threads": Team("plain", 1, CORES, args),
    }
    jobs = {name: (name, "tune") for name in teams} | {kind: ("ours", kind) for kind in PRODUCTS}
    jobs |= {f"{job} {team}": (team, job) for job in PASSES for team in ("ours", "plain_processes")}
    rounds: list[dict[str, Spent]] = []
    for place in range(args.rounds + 1):
        calm = wait_for_quiet(args.patience)
        # Under load a gang of threads takes minutes for what it does in a second: it runs in calm rounds alone.
        spent_by_job = {name: teams[team].do(job) for name, (team, job) in jobs.items() if calm or name != "plain_threads"}
        if place:  # the first round warms up
            rounds.append(spent_by_job)
    for team in teams.values():
        team.close()
    return summary(rounds, args)


def middle_of_quiet(values: Sequence[float]) -> float | None:
    """The median, or None where no round was quiet."""
    return statistics.median(values) if values else None


def _pass(rounds: Sequence[dict[str, Spent]], job: str, args: argparse.Namespace) -> dict[str, float]:
    """Images a processor second of embedding or routing, and their ratio."""
    times = args.images * CORES * {"embed": EMBEDDINGS, "route": ROUTINGS}[job]
    ours, plain = ([each[f"{job} {team}"].cpu for each in rounds] for team in ("ours", "plain_processes"))
    return {
        "ours": statistics.median([times / cpu for cpu in ours]),
        "plain": statistics.median([times / cpu for cpu in plain]),
        "ratio": statistics.median([slow / fast for fast, slow in zip(ours, plain, strict=True)]),
    }


def summary(rounds: Sequence[dict[str, Spent]], args: argparse.Namespace) -> Summary:
    """Medians. Rates per processor second hold under load; wall ratios of quiet rounds alone are kept for the gang of threads."""
    seen = args.images * args.epochs * CORES
    quiet = [each for each in rounds if "plain_threads" in each and max(each[name].foreign for name in CONTENDERS) < QUIET]
    flops = flops_per_image(args.batch)
    per_cpu = {name: statistics.median([seen / each[name].cpu for each in rounds]) for name in ("ours", "plain_processes")}
    ceiling = {
        kind: statistics.median([CORES * products * 2 * SQUARE**3 / each[kind].cpu for each in rounds])
        for kind, products in PRODUCTS.items()
    }
    return {
        "rounds": [{name: asdict(used) for name, used in each.items()} for each in rounds],
        "quiet_rounds": len(quiet),
        "images_per_wall_second": {name: middle_of_quiet([seen / each[name].wall for each in quiet]) for name in CONTENDERS},
        "images_per_cpu_second": per_cpu,
        "ratio_threads_wall_quiet": middle_of_quiet([each["plain_threads"].wall / each["ours"].wall for each in quiet]),
        "ratio_processes_wall": statistics.median([each["plain_processes"].wall / each["ours"].wall for each in rounds]),
        "ratio_processes_cpu": statistics.median([each["plain_processes"].cpu / each["ours"].cpu for each in rounds]),
        "ratio_processes_cpu_range": [f(each["plain_processes"].cpu / each["ours"].cpu for each in rounds) for f in (min, max)],
        "passes": {job: _pass(rounds, job, args) for job in PASSES},
        "flops_per_image": flops,
        "flops_per_cpu_second": ceiling,
        "foreign_load": statistics.median([each["ours"].foreign for each in rounds]),
        "settings": {"batch": args.batch, "images": args.images, "epochs": args.epochs, "clusters_plain": CLUSTERS},
    }
