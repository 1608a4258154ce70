"""Months of requests, simulated: how many GPU hours deletions take, and how long a person waits until they are forgotten.

A queue with a window, as `flows/requests/coordinator.py` has it: when no batch runs and the oldest request has waited `window`
seconds, all that wait become one batch. A batch takes a fixed overhead and images / rate of the GPUs. What it retrains is the
difference:

    ours    the clusters that its people are in, each subject in one of `clusters` equal ones
    paper   a share of all records for each person (measured by bench.people), so 1 - (1 - share)^n for a batch of n
    SISA    a whole model from scratch for each of the equal shards that its people are in (Bourtoule et al. 2021, without slices)

Assumed, not measured: the rate of a GPU, that people ask at random and evenly through the day, that newcomers take the place of
those who leave (their own training is not counted), and that every step costs a whole-model trainer `whole` times ours.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from bench.lab import RESULTS
from bench.lab.report import table

DAY_S = 86_400.0
RATES = (10, 100, 1_000, 10_000, 100_000)  # requests a day
PICTURE = "scale-requests.png"
Cost = Callable[[np.random.Generator, int], float]  # images that a batch of n people trains on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("requests")
    group.add_argument("--subjects", type=int, default=1_000_000)
    group.add_argument("--per-subject", type=float, default=1.0, help="records of a subject")
    group.add_argument("--clusters", type=int, default=512)
    group.add_argument("--shards", type=int, nargs="+", default=[20, 512])
    group.add_argument("--epochs", type=int, default=25, help="of tuning a cluster (ours, paper)")
    group.add_argument("--whole-epochs", type=int, default=40, help="of training a shard's whole model (SISA)")
    group.add_argument("--whole", type=float, default=1.5, help="cost of a whole model's step in ours: 3 passes against 2")
    group.add_argument("--gpu-rate", type=float, default=2000.0, help="images a second of one GPU in our step: an assumption")
    group.add_argument("--gpus", type=int, default=1)
    group.add_argument("--window", type=float, default=3600.0, help="s that requests wait for others")
    group.add_argument("--overhead", type=float, default=30.0, help="s of a batch beside training")
    group.add_argument("--days", type=int, default=90)
    group.add_argument("--paper-share", type=float, help="of all records, per deletion; else as in people-mnist.json")


def measured_share() -> float:
    """The paper's clustering on MNIST writers: mean share of records retrained per person, over the seeds of bench.people."""
    seeds = json.loads((RESULTS / "people-mnist.json").read_bytes())["results"]["seeds"]
    return float(np.mean([seed["variants"]["anchors, unit record (paper)"]["blast"]["share_mean"] for seed in seeds]))


def ways(options: argparse.Namespace, share: float) -> dict[str, Cost]:
    """Images that a batch costs, by the way of forgetting."""
    total: float = options.subjects * options.per_subject
    epochs: int = options.epochs
    clusters: int = options.clusters

    def touched(rng: np.random.Generator, groups: int, people: int) -> int:
        return len(np.unique(rng.integers(0, groups, people)))

    def ours(rng: np.random.Generator, people: int) -> float:
        return touched(rng, clusters, people) * total / clusters * epochs

    def paper(_: np.random.Generator, people: int) -> float:
        return float(1 - (1 - share) ** people) * total * epochs

    def sisa(shards: int) -> Cost:
        each = total / shards * options.whole_epochs * options.whole
        return lambda rng, people: touched(rng, shards, people) * each

    named: dict[str, Cost] = {f"ours, {options.clusters} clusters": ours, "the paper's clustering": paper}
    return named | {f"SISA, {shards} shards": sisa(shards) for shards in options.shards}


def queue(
    arrivals: NDArray[np.float64], seconds: Callable[[int], float], window: float
) -> tuple[NDArray[np.float64], float, int]:
    """Serve arrivals (s, sorted) in batches.

    Args: seconds: how long a batch of n takes. Returns: s from arrival to the end of its batch; busy seconds; batches.
    """
    done = np.empty_like(arrivals)
    first, free, busy, batches = 0, 0.0, 0.0, 0
    while first < len(arrivals):
        start = max(free, arrivals[first] + window)
        last = int(np.searchsorted(arrivals, start, side="right"))
        took = seconds(last - first)
        free = start + took
        done[first:last] = free
        first, busy, batches = last, busy + took, batches + 1
    return done - arrivals, busy, batches


class Row(TypedDict):
    """One way of forgetting at one rate of requests (a day)."""

    rate: int
    way: str
    requests: int
    batches: int
    gpu_hours_a_month: float
    gpu_seconds_a_request: float
    busy_share: float
    hours_mean: float
    hours_p95: float
    hours_max: float


class Simulation(TypedDict):
    rows: list[Row]
    paper_share: float
    arguments: dict[str, Any]  # of the command line


def simulate(options: argparse.Namespace) -> Simulation:
    """Every way at every rate of requests."""
    share = options.paper_share or measured_share()
    speed: float = options.gpu_rate * options.gpus
    overhead: float = options.overhead
    rows: list[Row] = []
    for rate in RATES:
        for place, (name, cost) in enumerate(ways(options, share).items()):
            rng = np.random.default_rng([rate, place])
            arrivals = np.sort(rng.uniform(0, options.days * DAY_S, rng.poisson(rate * options.days)))
            trained = 0.0

            def seconds(people: int, cost: Cost = cost, rng: np.random.Generator = rng) -> float:
                nonlocal trained
                took = cost(rng, people) / speed
                trained += took
                return took + overhead

            waits, busy, batches = queue(arrivals, seconds, options.window)
            rows.append(
                {
                    "rate": rate,
                    "way": name,
                    "requests": len(arrivals),
                    "batches": batches,
                    "gpu_hours_a_month": trained * options.gpus / 3600 * 30 / options.days,
                    "gpu_seconds_a_request": trained * options.gpus / len(arrivals),
                    "busy_share": busy / (options.days * DAY_S),
                    "hours_mean": float(waits.mean()) / 3600,
                    "hours_p95": float(np.quantile(waits, 0.95)) / 3600,
                    "hours_max": float(waits.max()) / 3600,
                }
            )
    arguments = {name: value for name, value in vars(options).items() if name not in ("part", "slots", "plain", "records")}
    return {"rows": rows, "paper_share": share, "arguments": arguments}


def numbers_of(row: Row) -> list[float]:
    """Those that the table shows."""
    hours = [row["hours_mean"], row["hours_p95"], row["hours_max"]]
    return [row["gpu_hours_a_month"], row["gpu_seconds_a_request"], *hours]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def markdown(simulation: Simulation) -> list[str]:
    given = simulation["arguments"]
    rows = simulation["rows"]
    cells = [[f"{row['rate']:,}", row["way"], f"{row['batches']:,}", *map(_number, numbers_of(row))] for row in rows]
    header = ["requests a day", "way", "batches", "GPU hours a month", "GPU s a request", "h to forget, mean", "p95", "max"]
    assumed = (
        f"A simulation, no measurement: {given['subjects']:,} subjects of {given['per_subject']:g} records, {given['days']} "
        f"days, a window of {given['window']:g} s, {given['overhead']:g} s beside training for a batch, {given['gpus']} GPU of "
        f"{given['gpu_rate']:g} images/s in our step (an assumption), {given['epochs']} epochs a cluster, "
        f"{given['whole_epochs']} a whole model, whose step costs {given['whole']:g} of ours (assumptions). The paper's "
        f"clustering retrains {simulation['paper_share']:.3f} of all records per deletion"
    )
    source = " (given)." if given["paper_share"] else ", as measured on MNIST writers (bench/results/people-mnist.json)."
    rest = (
        "Equal clusters and shards; people ask at random; newcomers take the place of those who leave, and their training is not "
        "counted; SISA has no slices. Not in it: that few large shards and many small ones differ in accuracy, purging, and "
        "people whose leaving moves the cut. With many more requests than clusters in a batch every way retrains everything: the "
        "longest wait is then about two full retrainings, and only more GPUs, or fewer epochs, shorten it. From acceptance on "
        "nobody's data answers any more (quarantine); the time here is until the certificate."
    )
    return [assumed + source, rest, f"![time to forget against requests a day]({PICTURE})", table(header, cells)]


def draw(simulation: Simulation) -> None:
    """Time to forget against the rate of requests: bench/results/scale-requests.png."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    names: Sequence[str] = list(dict.fromkeys(row["way"] for row in simulation["rows"]))
    for name, marker in zip(names, "osD^v<>", strict=False):
        rows = [row for row in simulation["rows"] if row["way"] == name]
        axes.plot([row["rate"] for row in rows], [row["hours_p95"] for row in rows], marker=marker, label=name)
    axes.set(xscale="log", yscale="log", xlabel="requests a day", ylabel="hours until forgotten, p95")
    axes.axhline(30 * 24, color="grey", linestyle=":", label="one month (GDPR, article 12(3))")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=8)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / PICTURE, dpi=120, metadata={"Software": None})
    plt.close(figure)
