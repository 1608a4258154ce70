"""Tables and picture of what was measured and simulated: bench/results/fleet.md, .json and .png."""

import json
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, TypedDict

from bench.fleet.assumptions import TAKEN, Assumption
from bench.fleet.course import CHANGES, PARTS
from bench.fleet.simulation import MODES, Outcome, Step, bottleneck
from bench.lab import RESULTS
from bench.lab.report import table, write_report

NAME, PICTURE = "fleet", "fleet.png"
Row = Mapping[str, Any]


class Measured(TypedDict):
    """Attributes: builds: rows of `course.measure`; rates: of `rates.measure`; command: that gave them; revision: of the code."""

    builds: list[dict[str, Any]]
    rates: dict[str, float]
    records: int
    command: str
    revision: str


def last_measured() -> Measured:
    """What the results hold. Raises: SystemExit if nothing was measured yet."""
    path = RESULTS / f"{NAME}.json"
    if not path.exists():
        raise SystemExit("bench.fleet: nothing was measured yet; run `python -m bench.fleet measure`")
    measured: Measured = json.loads(path.read_bytes())["results"]["measured"]
    return measured


def duration(seconds: float) -> str:
    """In the unit that people would take."""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def _wall_of(row: Row, kind: str) -> float:
    return sum(float(wave["wall"]) for wave in row["waves"] if wave["kind"] == kind)


def measured_text(measured: Measured) -> list[str]:
    rows = measured["builds"]

    def cells(row: Row) -> list[str]:
        waves = [f"{_wall_of(row, kind):.1f}" if row["waves"] else "" for kind in ("embed", "tune")]
        runs = ", ".join(str(wave["runs"]) for wave in row["waves"])
        start = f"{row['start']:.1f}" if "start" in row else ""
        return [row["where"], f"{row['wall']:.1f}", *waves, runs, start, f"{row['load']:.1f}"]

    header = ["where", "whole build", "embed", "tune", "runs (embed, tune)", "s until a run begins", "load before"]
    image, network = CHANGES["image"]["size"], CHANGES["pretrain"]["kwargs"]["channels"]
    what = (
        f"Measured by `{measured['command']}` at {measured['revision']}: wall seconds of the same first build of "
        f"{measured['records']:,} synthetic records ({image} px, a ResNet of {network} channels, {CHANGES['tune']['epochs']} "
        f"epochs, {PARTS} parts), here and over workers of the same folder (a real Prefect server), each pinned to a core, with "
        "one thread and started cold. Server and coordinator are not pinned: with two workers they share their cores. `here` has "
        f"both cores. All {rows[0]['artifacts']} outs of dvc.lock were equal in all builds; else there would be no table."
    )
    return ["## Measured", what, table(header, [cells(row) for row in rows]), speed_up(rows)]


def speed_up(rows: Sequence[Row]) -> str:
    """Of two workers over one, by medians."""
    one, two = ([row for row in rows if row["workers"] == count] for count in (1, 2))
    parts = [("embed", "embedding"), ("tune", "tuning")]
    told = [
        f"{name} {_ratio([_wall_of(row, kind) for row in one], [_wall_of(row, kind) for row in two])}" for kind, name in parts
    ]
    whole = _ratio([row["wall"] for row in one], [row["wall"] for row in two])
    return (
        f"Two workers over one, medians: {', '.join(told)}, the whole build {whole}. Each run starts a process of Prefect and "
        "imports torch; what is not handed out (split, the backbone, the gate, the evaluation) has one process either way, which "
        "takes longer where others use the machine."
    )


def _ratio(one: Sequence[float], two: Sequence[float]) -> str:
    return f"{median(one) / median(two):.2f}"


def assumed_text(assumed: Mapping[str, Assumption]) -> list[str]:
    rows = [[name, f"{value.value:,.6g}", value.unit, value.origin] for name, value in assumed.items()]
    said = (
        "**A simulation, no measurement: no GPU, no store and no second machine was measured here.** Discrete events "
        "(`bench/fleet/simulation.py`): runs wait for a worker, start, pull what they read from a store whose bandwidth they "
        "share, and compute; all else is one machine's, one step after the other, as the code has it, and its times are counts "
        "over rates. Nobody dies. Memory and disks are taken to suffice, which is much: what `validate` holds grows with the "
        "records, and a clone holds every part that it pulls. Where each number is from "
        f"({TAKEN}: no measurement stands behind it):"
    )
    return ["## Simulated", said, table(["name", "value", "unit", "where it is from"], rows)]


def _steps_table(outcomes: Sequence[Outcome], what: str) -> str:
    steps: list[list[Step]] = [outcome[what] for outcome in outcomes]  # type: ignore[literal-required]
    names = list(dict.fromkeys(step["step"] for each in steps for step in each))
    by_name = [{step["step"]: step for step in each} for each in steps]
    rows = [[name, *(duration(each[name]["seconds"]) if name in each else "" for each in by_name)] for name in names]
    rows.append(["**all**", *(f"**{duration(sum(step['seconds'] for step in each))}**" for each in steps)])
    rows.append(["bottleneck", *(f"{bottleneck(each)['step']}: {bottleneck(each)['bound']}" for each in steps)])
    return table(["step", *(f"{outcome['mode']}, {outcome['gpus']} GPU" for outcome in outcomes)], rows)


def simulated_text(outcomes: Sequence[Outcome]) -> list[str]:
    named = [
        f"- {outcome['mode']}, {outcome['gpus']} GPU: a build is held up by **{bottleneck(outcome['build'])['step']}** "
        f"({bottleneck(outcome['build'])['bound']}), an erasure by **{bottleneck(outcome['erasure'])['step']}** "
        f"({bottleneck(outcome['erasure'])['bound']})."
        for outcome in outcomes
    ]
    return [
        "### A first build",
        f"![a first build by step]({PICTURE})",
        _steps_table(outcomes, "build"),
        "### One person's erasure",
        _steps_table(outcomes, "erasure"),
        "### Bottlenecks",
        "\n".join(named),
    ]


def write(measured: Measured, assumed: Mapping[str, Assumption], outcomes: list[Outcome], seed: int) -> None:
    draw(outcomes)
    facts = {
        "measured": measured,
        "assumptions": {name: value.to_json() for name, value in assumed.items()},
        "simulated": outcomes,
        "seed": seed,
    }
    body = [*measured_text(measured), *assumed_text(assumed), *simulated_text(outcomes)]
    write_report(NAME, "A fleet of workers", body, facts)


def draw(outcomes: Sequence[Outcome]) -> None:
    """Hours of a first build by step, a bar for each mode and number of GPUs."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(MODES), figsize=(10, 4.5), layout="constrained", sharey=True)
    names = list(dict.fromkeys(step["step"] for outcome in outcomes for step in outcome["build"]))
    colours = {name: plt.get_cmap("tab20")(number) for number, name in enumerate(names)}
    for place, mode in zip(axes, MODES, strict=True):
        for number, outcome in enumerate([outcome for outcome in outcomes if outcome["mode"] == mode]):
            bottom = 0.0
            for step in outcome["build"]:
                hours = step["seconds"] / 3600
                label = None if number else step["step"]
                place.bar(number, hours, bottom=bottom, color=colours[step["step"]], label=label)
                bottom += hours
        counts = [outcome["gpus"] for outcome in outcomes if outcome["mode"] == mode]
        place.set_xticks(range(len(counts)), [f"{count} GPU" for count in counts])
        place.set_title(f"service.fan_out: {mode} (simulated)")
        place.legend(fontsize=7)
    axes[0].set_ylabel("hours of a first build")
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / PICTURE, dpi=120, metadata={"Software": None})
    plt.close(figure)
