"""The tables and the picture of a comparison over given backbones."""

import statistics
from collections.abc import Sequence
from typing import Literal

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bench.compare.real.chosen import CHOICE_TOLERANCE, CHOSEN_ON, TOLERANCE
from bench.compare.real.data import DATA, PUBLIC_IMAGES, TEST_IMAGES, TRAIN_IMAGES
from bench.compare.real.peers import DEEP, FINE_TUNED, LAST, ONE_PROMPT, OURS, PEERS
from bench.compare.real.results import NAME, Run
from bench.lab import RESULTS
from bench.lab.presets import BACKBONES
from bench.lab.report import table, write_report
from lmeraser.serve.yardstick import PENALTIES

Measure = Literal["accuracy", "log_loss", "calibration_error", "deletion_seconds", "deletion_passes", "storage", "fit_seconds"]
SEEDS = 3
LOGISTIC = (LAST, DEEP)
COUNTED = {
    "public": "public records",
    "train": "private training",
    "test": "private test",
    "people": "people who train",
    "labels": "labels",
}
NEVER = ("SVHN: not at hand",)

GROUND = (
    "A seed decides which people are public and all else that is random. CIFAR-10 and CIFAR-100 are **subsets**: a seed draws "
    f"{TRAIN_IMAGES:,} private training and {TEST_IMAGES:,} private test images of one, and {PUBLIC_IMAGES:,} public images of "
    "the other. Every value that a peer may choose (penalty, ridge, shrinkage, evenness, temperature) is chosen on public "
    f"records alone. Logistic regressions are solved in float32 to a gradient of {TOLERANCE:g}, their penalties chosen among "
    f"{len(PENALTIES)} on at most {CHOSEN_ON:,} public records, solved to {CHOICE_TOLERANCE:g}."
)
SECONDS = (
    "Seconds of a deletion: of exact heads, summing the person's records, subtracting and solving; of the paper's clustering, "
    "replaying it and solving the clusters that it changed; of SISA, one shard; of logistic regressions and SGD, the whole fit; "
    "of one prompt and of full fine-tuning, all of the training, on the clock"
)


def of(runs: Sequence[Run], backbone: str, data_name: str, peer: str) -> dict[int, Run]:
    """By seed."""
    there = {}
    for run in runs:
        if (run["backbone"], run["data"], run["peer"]) == (backbone, data_name, peer):
            there[run["seed"]] = run
    return there


def values(runs: dict[int, Run], measure: Measure) -> list[float]:
    return [float(value) for run in runs.values() if (value := run[measure]) is not None]


def spread(numbers: Sequence[float], pattern: str) -> str:
    """Mean (least to greatest) over the seeds; how many, if they are not all."""
    if not numbers:
        return ""
    middle = pattern.format(statistics.mean(numbers))
    if len(numbers) == 1:
        return f"{middle} (1 seed)"
    few = "" if len(numbers) == SEEDS else f", {len(numbers)} seeds"
    return f"{middle} ({pattern.format(min(numbers))} to {pattern.format(max(numbers))}{few})"


def measured_data(runs: Sequence[Run], backbone: str) -> list[str]:
    return [name for name in DATA if any((run["backbone"], run["data"]) == (backbone, name) for run in runs)]


def by_peer(runs: Sequence[Run], backbone: str, measure: Measure, pattern: str, scale: float = 1.0) -> str:
    """One row a peer, one column a data set."""
    names = measured_data(runs, backbone)
    rows = []
    for peer in PEERS:
        cells = [[value * scale for value in values(of(runs, backbone, name, peer), measure)] for name in names]
        if any(cells):
            rows.append([peer, *(spread(numbers, pattern) for numbers in cells)])
    return table(["peer", *names], rows)


def margins(runs: Sequence[Run], backbone: str, data_name: str, peer: str) -> dict[int, float]:
    """Points of accuracy by which ours is ahead of a peer, by seed."""
    ours, other = (of(runs, backbone, data_name, name) for name in (OURS, peer))
    ahead = {}
    for seed in sorted(ours.keys() & other.keys()):
        mine, its = ours[seed]["accuracy"], other[seed]["accuracy"]
        if mine is not None and its is not None:
            ahead[seed] = 100 * (mine - its)
    return ahead


def least_margins(runs: Sequence[Run], backbone: str, data_name: str) -> dict[int, float]:
    """Points by which ours is ahead of the better of the two logistic regressions, by seed; where both were measured."""
    last, deep = (margins(runs, backbone, data_name, peer) for peer in LOGISTIC)
    return {seed: min(last[seed], deep[seed]) for seed in last.keys() & deep.keys()}


def margin_table(runs: Sequence[Run]) -> str:
    rows = []
    for backbone in BACKBONES:
        for name in measured_data(runs, backbone):
            ahead = [list(margins(runs, backbone, name, peer).values()) for peer in LOGISTIC]
            better = list(least_margins(runs, backbone, name).values())
            won = f"{sum(points >= 0 for points in better)} of {len(better)}"
            rows.append([backbone, name, *(spread(points, "{:+.2f}") for points in (*ahead, better)), won])
    head = ["backbone", "data", *(f"against {peer}" for peer in LOGISTIC), "against the better", "seeds at or above the better"]
    return table(head, rows)


def verdict(runs: Sequence[Run]) -> str:
    """In how many rows ours is where it must be."""
    rows = [(backbone, name) for backbone in BACKBONES for name in measured_data(runs, backbone)]
    better = {row: list(least_margins(runs, *row).values()) for row in rows}
    better = {row: points for row, points in better.items() if points}
    in_mean = sum(statistics.mean(points) >= 0 for points in better.values())
    with_every = sum(min(points) >= 0 for points in better.values())
    every = [points for row in better.values() for points in row]
    last = {row: list(margins(runs, *row, LAST).values()) for row in rows}
    clear = [row for row, points in last.items() if points and statistics.mean(points) >= 2]
    below = [f"{backbone}, {name} ({statistics.mean(points):+.2f})" for (backbone, name), points in better.items()
             if statistics.mean(points) < 0]  # fmt: skip
    lines = [
        f"- Ours is at least the better of the two logistic regressions on {in_mean} of {len(better)} rows in the mean, on "
        f"{with_every} of {len(better)} with every seed, and in {sum(points >= 0 for points in every)} of {len(every)} seeds.",
        f"- It is two points or more above the one on the last layer, in the mean, on {len(clear)} of "
        f"{sum(map(bool, last.values()))} rows.",
    ]
    return "\n".join([*lines, *([f"- Below the better one: {'; '.join(below)}."] if below else [])])


def against_trained(runs: Sequence[Run]) -> str:
    """Ours against those that train through the network, under the seeds that both have."""
    rows = []
    for backbone in BACKBONES:
        for name in measured_data(runs, backbone):
            ahead = [list(margins(runs, backbone, name, peer).values()) for peer in (ONE_PROMPT, FINE_TUNED)]
            if any(ahead):
                rows.append([backbone, name, *(spread(points, "{:+.2f}") for points in ahead)])
    if not rows:
        return "No peer that trains through the network was measured."
    return table(["backbone", "data", *(f"against {peer}" for peer in (ONE_PROMPT, FINE_TUNED))], rows)


def not_measured(runs: Sequence[Run]) -> str:
    lines = []
    for backbone in BACKBONES:
        for name in DATA:
            few = {peer: len(of(runs, backbone, name, peer)) for peer in PEERS}
            for count in range(SEEDS):
                peers = [peer for peer, seeds in few.items() if seeds == count]
                if peers:
                    what = "nothing" if len(peers) == len(PEERS) and not count else "; ".join(peers)
                    lines.append(f"- {backbone}, {name}, {count or 'no'} seed{'' if count == 1 else 's'}: {what}")
    return "\n".join([*lines, *(f"- {text}" for text in NEVER)])


def draw(runs: Sequence[Run]) -> str:
    """Accuracy of each peer, a panel a backbone: means as marks, ranges over seeds as lines."""
    figure, panels = plt.subplots(1, len(BACKBONES), figsize=(12, 5), dpi=120, sharey=True)
    marks = "osD^vPX*<>ph"
    for axes, backbone in zip(panels, BACKBONES, strict=True):
        names = measured_data(runs, backbone)
        for place, peer in enumerate(PEERS):
            for column, name in enumerate(names):
                numbers = values(of(runs, backbone, name, peer), "accuracy")
                if not numbers:
                    continue
                across = column + 0.07 * (place - len(PEERS) / 2)
                colour = f"C{place}"
                axes.plot([across] * 2, [min(numbers), max(numbers)], color=colour, linewidth=1)
                label = peer if not column else None
                axes.scatter(across, statistics.mean(numbers), color=colour, marker=marks[place], s=28, label=label, zorder=3)
        axes.set_xticks(range(len(names)), names)
        axes.set_title(backbone)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy on private test records")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, fontsize=7)
    figure.tight_layout(rect=(0, 0.16, 1, 1))
    path = RESULTS / f"{NAME}.png"
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
    return path.name


def on_gpus(runs: Sequence[Run]) -> str:
    """Which cards gave the numbers of those that train through the network."""
    cards = sorted({run["gpu"] for run in runs if "gpu" in run})
    return f", on one {' or one '.join(cards)} (bfloat16)" if cards else ""


def counts_table(runs: Sequence[Run]) -> str:
    """How many records of each kind, over the seeds."""
    rows = []
    for name in DATA:
        seeds = {run["seed"]: run["counts"] for run in runs if run["data"] == name}
        if seeds:
            reach = [sorted({counts[kind] for counts in seeds.values()}) for kind in COUNTED]
            rows.append([name, *(" to ".join(f"{n:,}" for n in dict.fromkeys((least[0], least[-1]))) for least in reach)])
    return table(["data", *COUNTED.values()], rows)


def write_real(runs: Sequence[Run]) -> None:
    """Markdown and picture of all that was measured so far. Raises: SystemExit if nothing was."""
    if not runs:
        raise SystemExit("bench.compare: nothing was measured over given backbones yet; run it without --report")
    commands = sorted({f"`{run['command']}`" for run in runs})
    rebuilds = [run["equal"] for run in runs if run["equal"] is not None]
    body = [
        f"Measured by {'; '.join(commands)}; the revision of each number is in {NAME}.json.",
        f"Mean (least to greatest) over {SEEDS} seeds.",
        GROUND,
        counts_table(runs),
        verdict(runs),
        "## Points of ours against both logistic regressions",
        margin_table(runs),
        "## Points of ours against what trains through the network",
        f"Neither can forget anybody but by training all of it again{on_gpus(runs)}. A network whose every weight is trained on "
        "everybody's images is often the better model, and the one that keeps them.",
        against_trained(runs),
    ]
    for backbone in BACKBONES:
        if measured_data(runs, backbone):
            body += [f"## Accuracy over {backbone}", by_peer(runs, backbone, "accuracy", "{:.4f}")]
    body += [
        f"![accuracy of every peer]({draw(runs)})",
        "k nearest neighbours give many labels no probability at all; a log-loss counts none below 1e-6. The ridge before has no "
        "softmax: its regressed indicators are clipped at zero and normalised.",
    ]
    for backbone in BACKBONES:
        if measured_data(runs, backbone):
            body += [
                f"## Over {backbone}: log-loss, then calibration error",
                by_peer(runs, backbone, "log_loss", "{:.3f}"),
                by_peer(runs, backbone, "calibration_error", "{:.3f}"),
                f"## Over {backbone}: one person's deletion, processor seconds on features at hand",
                by_peer(runs, backbone, "deletion_seconds", "{:,.2f}"),
                "Images that must pass the network again for it, where no features are kept:",
                by_peer(runs, backbone, "deletion_passes", "{:,.0f}"),
                "MiB beside the backbone (one pass of the network an answer for every peer):",
                by_peer(runs, backbone, "storage", "{:,.1f}", 1 / 2**20),
            ]
    body += [
        f"A deletion by subtraction gave the bytes of a rebuild in {sum(map(bool, rebuilds))} of {len(rebuilds)} exact heads.",
        f"{SECONDS}{on_gpus(runs)}.",
        "## Not measured, or over fewer than three seeds",
        not_measured(runs),
    ]
    write_report(NAME, "Ours against its peers over given backbones", body, {"runs": list(runs)})
