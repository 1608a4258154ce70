"""What was measured so far, in bench/results/erasure*.json, its tables, and the picture of cost against records."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from bench.erasure.course import AUDIT, BUILD, ERASURE, GROWTH, PLAN, PRETRAIN, Run
from bench.erasure.ground import BY_FILE, METHODS, NEWCOMERS, PUBLIC, SHARDS, SIDE, TEST, TREE
from bench.lab import RESULTS
from bench.lab.kept import alone, runs_in
from bench.lab.report import provenance, table, write_report
from lmeraser.core.digest import readable_json
from lmeraser.core.files import write_atomically
from lmeraser.erase.states import WAY

NAME, PICTURE = "erasure", "erasure.png"
DIVIDED = dict(zip(METHODS, ("ours", "at random, SISA's way", "anchors, the paper's way"), strict=True))
REST = "start of the command, acceptance, quarantine"  # no step tells of them
PROJECT = ["private records", "way", "clusters by"]
METHOD = (
    "Each row is one real command in a project of its own (git repository, DVC, keys), run as `python -m flows.cli`. "
    "**Processor seconds** are user and system of every process that had a part: of the command and all that it waited for "
    "(wait4), and of warm processes what they and the children that they waited for took meanwhile (/proc). **Bytes** are rchar "
    "and wchar: also through pipes and from the page cache, but not what is mapped into memory. **Memory** is the peak of the "
    "largest process. `warm`: beside the processes that `make serve` keeps warm, after one erasure that is not counted; their "
    "start is not counted either. **In effect** is when the served model begins to leave the people out, in wall seconds from "
    "the command's start. **Tuning** is what the clusters' own training takes: `python -m stages.tune` run once more for "
    "the same clusters, less a process that loads all that it needs and trains none; where it is below some tenths of a second, "
    "it is noise. `heads`: cluster heads and the global head are solved from sums (tune.kind closed, plain projection, "
    "discriminant), nothing is trained; `prompts`: frame and head of each cluster by SGD. An erasure that did not end "
    "certified, or an unequal audit, fails the bench and has no row."
)
SYNTHETIC = (
    f"Synthetic people: {SIDE} px grey images of ten noisy prototypes, two records a person, {PUBLIC:,} public and {TEST:,} test "
    "records, a tiny backbone, two epochs of tuning, no linear head; a cluster for a hundred records, at most 512 slots; parts "
    "of about 16,384 records, at least four. SISA's way: "
    f"people to {SHARDS} shards at random; the paper's: average linkage over anchors, record as unit, as many clusters as its "
    "params say."
)


NAMED = (
    f"From {BY_FILE:,} records on `source.path` names the manifest, the images lie beside it: DVC then looks at that file alone, "
    "where in a folder it looks at every image each time that it is asked anything."
)


def results_name(data: str) -> str:
    return NAME if data == "synthetic" else f"{NAME}-{data}"


def kept_runs(data: str, folder: Path = RESULTS) -> list[Run]:
    """Every measurement so far."""
    return runs_in(folder / f"{results_name(data)}.json")


def keep(run: Run, folder: Path = RESULTS) -> None:
    """Add a measurement; one of the same project, command, number of people and warmth is replaced."""
    with alone(NAME):
        kept = {key_of(each): each for each in (*kept_runs(run["data"], folder), run)}
        ordered = [kept[key] for key in sorted(kept)]
        path = folder / f"{results_name(run['data'])}.json"
        write_atomically(path, readable_json({**provenance(), "results": {"runs": ordered}}))


Key = tuple[int, str, int, str, str, int, bool]


def key_of(run: Run) -> Key:
    return (*_project(run), run["what"], run["people"], run["warm"])


def _project(run: Run) -> tuple[int, str, int, str]:
    return run["records"], run["way"], run["clusters"], run["method"]


def _cells(run: Run) -> list[str]:
    """How a row of every table begins."""
    total = f"{run['total']} of {run['clusters']} asked" if run["total"] else f"{run['clusters']} asked"
    return [f"{run['records']:,}", run["way"], f"{DIVIDED[run['method']]}, {total}"]


def _spent(run: Run) -> list[str]:
    spent = run["spent"]
    return [
        f"{spent['wall']:.1f}",
        f"{spent['read'] / 1e6:,.0f}",
        f"{spent['written'] / 1e6:,.0f}",
        f"{spent['peak'] / 2**30:.2f}",
    ]


SPENT = ["wall s", "MB read", "MB written", "GiB, largest"]


def _of(runs: Sequence[Run], what: str) -> list[Run]:
    return [run for run in runs if run["what"] == what]


def build_seconds(runs: Sequence[Run], like: Run) -> float | None:
    """Processor seconds of the first build of a run's project without its pretraining; None where it was not measured."""
    same: dict[str, float] = {
        run["what"]: run["spent"]["cpu"] for run in runs if run["what"] in (BUILD, PRETRAIN) and _project(run) == _project(like)
    }
    return same[BUILD] - same[PRETRAIN] if {BUILD, PRETRAIN} <= same.keys() else None


def _share(runs: Sequence[Run], run: Run) -> str:
    whole = build_seconds(runs, run)
    return f"1/{whole / run['spent']['cpu']:.1f}" if whole else "not measured"


def _mode(run: Run) -> str:
    return "warm" if run["warm"] else "cold"


def erasure_table(runs: Sequence[Run]) -> str:
    header = [
        *PROJECT,
        "people",
        "",
        "processor s",
        "of them tuning",
        "beside it",
        "of a build",
        "in effect after s",
        *SPENT,
        "retrained",
        "of records",
    ]
    rows = []
    for run in _of(runs, ERASURE):
        cpu, tuning = run["spent"]["cpu"], run["tuning"] or 0.0
        amounts = [str(run["retrained"]), f"{run['records_retrained']:,}"]
        seconds = [f"{cpu:.1f}", f"{tuning:.1f}", f"{cpu - tuning:.1f}"]
        effect = run.get("effect")  # older measurements have none
        soon = "not measured" if effect is None else f"{effect:.2f}"
        rows.append([*_cells(run), run["people"], _mode(run), *seconds, _share(runs, run), soon, *_spent(run), *amounts])
    return table(header, rows)


def build_table(runs: Sequence[Run]) -> str:
    header = [*PROJECT, "processor s", "of them pretraining", "without", *SPENT]
    rows = []
    for run in _of(runs, BUILD):
        rest = build_seconds(runs, run)
        parts = [f"{run['spent']['cpu'] - rest:.1f}", f"{rest:.1f}"] if rest is not None else ["not measured"] * 2
        rows.append([*_cells(run), f"{run['spent']['cpu']:.1f}", *parts, *_spent(run)])
    return table(header, rows)


def addition_table(runs: Sequence[Run]) -> str:
    header = [*PROJECT, "command", "", "processor s", "of a first build", *SPENT, "retrains"]
    rows = []
    for run in sorted(
        [*_of(runs, PLAN), *_of(runs, GROWTH)], key=lambda run: (*_project(run), run["warm"], run["what"] == GROWTH)
    ):
        command = "`lmeraser plan --add`" if run["what"] == PLAN else "`lmeraser build`"
        retrained = "" if run["retrained"] is None else f"{run['retrained']} of {run['total']}"
        cpu = f"{run['spent']['cpu']:.1f}"
        rows.append([*_cells(run), command, _mode(run), cpu, _share(runs, run), *_spent(run), retrained])
    return table(header, rows)


def steps_table(runs: Sequence[Run]) -> str:
    """Wall seconds of one person's erasure by step, and below each by what it spent it on; one column a project and mode."""
    erasures = [run for run in _of(runs, ERASURE) if run["people"] == 1]
    header = [
        "step",
        *(f"{run['records']:,} {run['way']}, {DIVIDED[run['method']]}, {run['clusters']}, {_mode(run)}" for run in erasures),
    ]
    columns = [_steps(run) for run in erasures]
    place_of = {name: place for place, name in enumerate([REST, *WAY])}
    names = sorted({*chain(*columns)}, key=lambda name: (place_of[name.partition(": ")[0]], name))  # a part below its step
    rows = [[name, *(f"{column[name]:.2f}" if name in column else "" for column in columns)] for name in names]
    return table(header, rows)


def _steps(run: Run) -> dict[str, float]:
    """Seconds by step, the parts and slots of a kind of stage (`tune@c07`) together; what no step tells first."""
    steps = {REST: run["spent"]["wall"] - sum(seconds for name, seconds in run["steps"].items() if ": " not in name)}
    for name, seconds in run["steps"].items():
        kind = name.partition("@")[0]
        steps[kind] = steps.get(kind, 0.0) + seconds
    return steps


def audit_line(runs: Sequence[Run]) -> str:
    audits = _of(runs, AUDIT)
    equal = sum(bool(run["equal"]) for run in audits)
    return (
        f"`lmeraser audit --rebuild` at the end of {len(audits)} projects, after all erasures and additions: {equal} equal. "
        "Larger ones were not audited."
    )


def measured_by(runs: Sequence[Run]) -> str:
    """Commands, revisions, processors, and how loaded the machine was."""
    commands = sorted({(run["command"], run["revision"], run["processor"]) for run in runs})
    loads = [run["load"] for run in runs]
    return (
        "Measured by "
        + "; ".join(f"`{command}` at {revision} on {processor}" for command, revision, processor in commands)
        + f". Load of the machine when a command began: {min(loads):.1f} to {max(loads):.1f}."
    )


def write(data: str) -> None:
    """The tables of everything measured of a data set so far. Raises: SystemExit if there is nothing."""
    runs = kept_runs(data)
    if not runs:
        raise SystemExit(f"bench.erasure: nothing was measured of {data}")
    body = [measured_by(runs), METHOD, *([SYNTHETIC] if data == "synthetic" else []), *([NAMED] if data != "digits" else [])]
    body += ["## Erasures, from request to certificate", "`of a build`: without pretraining.", erasure_table(runs)]
    body += [
        "## First builds",
        "Pretraining is its stage run once more, with its process's start; once for the same public records.",
        build_table(runs),
    ]
    if _of(runs, GROWTH):
        body += [f"## {NEWCOMERS} new records of {NEWCOMERS // 2} new people", addition_table(runs)]
    body += ["## One person's erasure by step, wall seconds", steps_table(runs), audit_line(runs)]
    if data == "synthetic":
        draw(runs)
        body.insert(1, f"![processor seconds against records]({PICTURE})")
    write_report(results_name(data), f"What an erasure costs: {data}", body, {"runs": runs})


def lines_of(runs: Sequence[Run]) -> dict[str, list[tuple[int, float]]]:
    """The lines of the picture: records and processor seconds by what was done; ours alone, one person."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for run in runs:
        if run["method"] != TREE:
            continue
        if run["what"] == BUILD and (rest := build_seconds(runs, run)) is not None:
            lines.setdefault(f"whole build without pretraining, {run['way']}", []).append((run["records"], rest))
        if run["what"] == ERASURE and run["people"] == 1:
            lines.setdefault(f"one person, {run['way']}, {_mode(run)}", []).append((run["records"], run["spent"]["cpu"]))
    return {name: sorted(lines[name]) for name in sorted(lines)}


def draw(runs: Sequence[Run]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for (name, points), marker in zip(lines_of(runs).items(), "osD^v<>", strict=False):
        style = "--" if name.startswith("whole") else "-"
        axes.plot(*zip(*points, strict=True), marker=marker, linestyle=style, label=name)
    axes.set(xscale="log", yscale="log", xlabel="private training records", ylabel="processor seconds")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=8)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / PICTURE, dpi=120, metadata={"Software": None})
    plt.close(figure)
