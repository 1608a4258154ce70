"""The tables of `bench.speed`."""

from typing import TypedDict

from bench.lab.report import table, write_report


class Summary(TypedDict):
    """Medians over the rounds; None where no round was quiet. Rates are images a second; `cpu`: of processor."""

    rounds: list[dict[str, dict[str, float]]]
    quiet_rounds: int
    images_per_wall_second: dict[str, float | None]
    images_per_cpu_second: dict[str, float]
    ratio_threads_wall_quiet: float | None
    ratio_processes_wall: float
    ratio_processes_cpu: float
    ratio_processes_cpu_range: list[float]
    passes: dict[str, dict[str, float]]
    flops_per_image: float
    flops_per_cpu_second: dict[str, float]
    foreign_load: float
    settings: dict[str, int]


SQUARE = 1024  # rows and columns of the product that measures the ceiling
QUIET = 0.05  # share of the cores that others may use in a quiet round


def _rate(value: float | None) -> str:
    return "not measured" if value is None else f"{value:,.0f}"


def report(summary: Summary) -> None:
    cpu, wall, top = summary["images_per_cpu_second"], summary["images_per_wall_second"], summary["flops_per_cpu_second"]
    total, quiet, gang = len(summary["rounds"]), summary["quiet_rounds"], summary["ratio_threads_wall_quiet"]
    low, high = summary["ratio_processes_cpu_range"]
    share = {kind: summary["flops_per_image"] / rate for kind, rate in top.items()}
    ratios = [
        [
            "wall time, both cores, plain with a thread a core; quiet rounds only",
            "not measured: no round was quiet" if gang is None else f"{gang:.2f} ({quiet} rounds)",
        ],
        ["wall time, plain given our processes as well", f"{summary['ratio_processes_wall']:.2f}"],
        ["processor time, plain given our processes as well", f"{summary['ratio_processes_cpu']:.2f} ({low:.2f} to {high:.2f})"],
    ]
    ours, plain = cpu["ours"], cpu["plain_processes"]
    rates = [
        ["ours, bfloat16, a process a core", _rate(wall["ours"]), _rate(ours), f"{ours * share['bfloat16']:.0%} of bfloat16"],
        ["plain, a process a core", _rate(wall["plain_processes"]), _rate(plain), f"{plain * share['float32']:.0%} of float32"],
        ["plain, one process, a thread a core", _rate(wall["plain_threads"]), "", ""],
    ]
    passes = [
        [words, *(_rate(summary["passes"][job][who]) for who in ("ours", "plain")), f"{summary['passes'][job]['ratio']:.2f}"]
        for job, words in (("embed", "embedding: forward alone, float32"), ("route", "routing: from features to a cluster"))
    ]
    body = [
        table(["ours against the plain loop (target 4)", "ratio"], ratios),
        table(["training step", "images/s, all cores, quiet rounds", "images per processor second", "of the ceiling"], rates),
        table(["images per processor second", "ours", "plain", "ratio"], passes),
        f"Batch {summary['settings']['batch']}, {total} interleaved rounds, medians; {quiet} were quiet (others used less than "
        f"{QUIET:.0%} of the cores; median over all rounds {summary['foreign_load']:.0%}). A gang of threads waits at every "
        "barrier for the one that a neighbour pushed off its core: under load its wall time says nothing and is left out.",
        f"The ceiling, measured in the same rounds: {summary['flops_per_image'] / 1e6:.1f} MFLOP an image (forward and backward "
        f"to the input) over {top['bfloat16'] / 1e9:,.0f} GFLOP/s (bfloat16) and {top['float32'] / 1e9:,.0f} GFLOP/s (float32) a "
        f"core, products of {SQUARE} x {SQUARE}. Ours is at {ours * share['float32']:.0%} of the float32 rate. The plain loop "
        "computes one more forward pass, for routing, that its share leaves out. Not measured on a GPU.",
    ]
    name = "speed" if summary["settings"]["batch"] == 64 else f"speed-batch{summary['settings']['batch']}"
    write_report(name, f"Speed, batch {summary['settings']['batch']}", body, summary)
