"""The tables and the picture of `bench.compare`."""

import statistics
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bench.compare.results import Contest, Run
from bench.lab import RESULTS
from bench.lab.report import table, write_report
from lmeraser.core.params import Params

Runs = Sequence[Run]  # of one peer, one a seed
NONE = "not measured"
YARDSTICKS = {"the linear head": "linear head on all private data", "the global head alone": "global head alone (ours, mix 0)"}


def spread(values: Sequence[float]) -> str:
    """Mean and range over the seeds."""
    if len(values) == 1:
        return f"{values[0]:.4f} (1 seed)"
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def mean(runs: Runs, *path: str) -> float | None:
    """Mean over the seeds of a number by its place in a run; None where no run has it."""
    values = []
    for run in runs:
        value: object = run
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, int | float):
            values.append(float(value))
    return statistics.mean(values) if values else None


def shown(value: float | None, pattern: str = "{:,.0f}") -> str:
    return "" if value is None else pattern.format(value)


def accuracy_rows(runs: Mapping[str, Runs]) -> list[list[str]]:
    """One row a peer, one column a part of its answer."""
    rows = []
    for name, peer_runs in runs.items():
        row = [name]
        for part in ("served", "clusters_soft", "clusters_hard"):
            values = list(by_seed(peer_runs, part).values())
            row.append(spread(values) if values else "")
        rows.append(
            [*row, shown(mean(peer_runs, "groups")), shown(mean(peer_runs, "largest"))]
            if peer_runs
            else [name, NONE, "", "", "", ""]
        )
    return rows


def by_peer(contest: Contest, names: Sequence[str]) -> Mapping[str, Runs]:
    return {name: [run for run in contest["runs"] if run["peer"] == name] for name in names}


def share_of_all(runs: Runs, contest: Contest, params: Params) -> str:
    """The mean cost of one random deletion as a share of one prompt tuned on all."""
    cost = mean(runs, "deletion", "1", "mean")
    return f"1/{max(1, round(contest['counts']['train'] * params.tune.epochs / cost)):,}" if cost else ""


def cost_rows(runs: Mapping[str, Runs], contest: Contest, params: Params) -> list[list[str]]:
    """Records x epochs of a random single deletion, and as a share of one prompt tuned on all."""
    rows = []
    for name, peer_runs in runs.items():
        if not peer_runs:
            continue
        single = [mean(peer_runs, "deletion", "1", key) for key in ("mean", "p95", "max")]
        share = share_of_all(peer_runs, contest, params)
        seconds = [mean(peer_runs, "deletion_seconds", "1", key) for key in ("mean", "p95", "max")]
        rows.append([name, *(shown(value) for value in single), share, *(shown(value, "{:,.2f}") for value in seconds)])
    return rows


def batch_rows(runs: Mapping[str, Runs], sizes: Sequence[str]) -> list[list[str]]:
    rows = []
    for name, peer_runs in runs.items():
        if not peer_runs:
            continue
        batches = [shown(mean(peer_runs, "deletion", size, "mean")) for size in sizes]
        storage = shown((mean(peer_runs, "storage") or 0) / 2**20, "{:,.1f}")
        equal = all(run["rebuild"]["equal"] for run in peer_runs)
        compared = sum(run["rebuild"]["compared"] for run in peer_runs)
        exact = f"{'equal' if equal else 'NOT EQUAL'} ({compared})"
        rows.append([name, *batches, storage, shown(mean(peer_runs, "passes")), exact])
    return rows


def draw(data_name: str, runs: Mapping[str, Runs]) -> str:
    """Accuracy against the processor seconds of a single deletion; one point a peer."""
    figure, axes = plt.subplots(figsize=(8, 5), dpi=120)
    for name, peer_runs in runs.items():
        seconds = mean(peer_runs, "deletion_seconds", "1", "mean") if peer_runs else None
        served = mean(peer_runs, "accuracy", "served") if peer_runs else None
        if seconds is None or served is None:
            continue
        ours = "ours" in name
        axes.scatter(
            max(seconds, 1e-3), served, color="tab:orange" if ours else "tab:blue", marker="o" if ours else "s", zorder=3
        )
        axes.annotate(name, (max(seconds, 1e-3), served), textcoords="offset points", xytext=(5, 4), fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("processor seconds of training for one random deletion (0.001: none)")
    axes.set_ylabel("served accuracy on private test records")
    axes.grid(alpha=0.3)
    axes.margins(x=0.25)
    figure.tight_layout()
    path = RESULTS / f"compare-{data_name}.png"
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
    return path.name


def by_seed(runs: Runs, part: str) -> dict[int, float]:
    """Accuracy of a part of the answer, where it was measured."""
    scores = {run["seed"]: run["accuracy"].get(part) for run in runs}
    return {seed: score for seed, score in scores.items() if score is not None}


def margin(runs: Mapping[str, Runs], peer: str, other: str, part: str = "served") -> str | None:
    """Points by which a peer is ahead of the other: mean (least to greatest) over the seeds that both have, or None."""
    ahead, behind = (by_seed(runs.get(name, []), part) for name in (peer, other))
    both = [100 * (ahead[seed] - behind[seed]) for seed in ahead if seed in behind]
    if not both:
        return None
    reach = f", {min(both):+.2f} to {max(both):+.2f}" if len(both) > 1 else ""
    return f"{statistics.mean(both):+.2f} ({len(both)} seed{'s' if len(both) > 1 else ''}{reach})"


def verdict(runs: Mapping[str, Runs], framed: bool) -> str:
    """Ours against the linear head, the global head alone and, where both were measured, heads without prompts: seed by seed.

    Args: framed: whether the preset tunes prompts; else nothing can be said of them.
    """
    ours = [name for name, peer_runs in runs.items() if name.startswith("ours") and peer_runs]
    lines = []
    for name in ours:
        against = {other: margin(runs, name, full) for other, full in YARDSTICKS.items()}
        margins = "; ".join(f"{points} against {other}" for other, points in against.items() if points)
        if margins:
            lines.append(f"- {name}: {margins}")
    if not framed:
        lines.append("- The preset tunes heads without prompts: peers with and without `heads only` are the same.")
    for name in ours if framed else []:
        heads = f"{name.removesuffix(', prompts')}, heads only"
        served, alone = (margin(runs, name, heads, part) for part in ("served", "clusters_hard"))
        if served and alone and name != heads:
            lines.append(f"- What the prompt adds to a head-only cluster ({name}): {served}; clusters alone, hard: {alone}")
    return "Served, in points:\n\n" + "\n".join(lines) if lines else "Not measured: ours, the linear head or the global head."


def write_tables(data_name: str, contest: Contest, names: Sequence[str], params: Params) -> None:
    """Markdown, JSON and picture of all that was measured so far."""
    runs = by_peer(contest, names)
    counts = contest.get("counts")
    if counts is None:
        raise SystemExit(f"bench.compare: nothing was measured for {data_name} yet; run it without --report")
    sizes = sorted({size for run in contest["runs"] for size in run["deletion"]} - {"1"}, key=int)
    made = sorted({f"`{run['provenance']['command']}` at {run['provenance']['revision']}" for run in contest["runs"]})
    head = ["peer", "served", "clusters, soft", "clusters, hard", "groups", "largest"]
    single = ["peer", "mean", "p95", "worst", "of tuning all again", "processor s, mean", "p95", "worst"]
    several = [
        "peer",
        *(f"{size} at once" for size in sizes),
        "MiB beside the backbone",
        "passes an answer",
        "rebuild (groups compared)",
    ]
    body = [
        f"{counts['public']} public, {counts['train']} private training and {counts['test']} private test records of "
        f"{counts['people']} training subjects; mean (least to greatest) over the seeds. Measured by {'; '.join(made)}.",
        verdict(runs, params.tune.frame_px > 0),
        "## Accuracy on private test records",
        table(head, accuracy_rows(runs)),
        "## One random subject leaves: records x epochs trained again, and processor seconds of that training",
        table(single, cost_rows(runs, contest, params)),
        "Seconds: records x epochs by this peer's own rate in this run, training alone (no start of processes, no DVC). The "
        "linear head counts an iteration over cached features as an epoch; a record that the global head subtracts counts once, "
        "and its seconds are the solve's.",
        "## Many leave at once (records x epochs), storage, inference, exactness",
        table(several, batch_rows(runs, sizes)),
        f"![accuracy against the cost of a deletion]({draw(data_name, runs)})",
    ]
    write_report(f"compare-{data_name}", f"Ours against its peers: {data_name}", body, contest)


def write_overview(contests: Mapping[str, tuple[Contest, Sequence[str], Params]]) -> None:
    """One table of ours over all data sets, and what was not measured. Args: by data set its results, peers and params."""
    rows: list[list[str]] = []
    missing: list[str] = []
    for data_name, (contest, names, params) in contests.items():
        if not contest["runs"]:
            missing.append(f"- {data_name}: nothing")
            continue
        runs = by_peer(contest, names)
        for name in (name for name, peer_runs in runs.items() if name.startswith("ours") and peer_runs):
            against = [margin(runs, name, yardstick) or "" for yardstick in YARDSTICKS.values()]
            served = spread(list(by_seed(runs[name], "served").values()))
            rows.append(
                [data_name, name, served, *against, share_of_all(runs[name], contest, params), shown(mean(runs[name], "passes"))]
            )
        for seeds in (0, 1, 2):
            few = [name for name, peer_runs in runs.items() if len(peer_runs) == seeds]
            if few:
                missing.append(f"- {data_name}, {seeds or 'no'} seed{'' if seeds == 1 else 's'}: {'; '.join(few)}")
    head = ["data", "ours", "served", "points against the linear head", "against the global head alone", "of tuning all again",
            "passes an answer"]  # fmt: skip
    body = [
        table(head, rows),
        "One random subject leaves: its mean cost in records x epochs, as a share of tuning one prompt on all. Three seeds if "
        "not said otherwise; peers, batches, storage and rebuild checks: compare-DATA.md.",
        "## Not measured, or over fewer than three seeds",
        "\n".join(missing) or "Nothing.",
    ]
    write_report("compare", "Ours against its peers: all data sets", body, {"data": sorted(contests)})
