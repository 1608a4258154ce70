"""`lmeraser drill`: try in a copy whether a restored backup brings erased people back."""

import argparse
from pathlib import Path

from flows.cli.command import BAD_INPUT, Result

HELP = "in a copy: backup, erase, restore, reapply; does anybody come back?"
EXIT_CODES = {
    0: "nobody came back; the report and an event of the ledger say so",
    1: "somebody came back, an artifact differs, something was left in a store, or a step failed",
    2: BAD_INPUT,
}
EXAMPLES = ["lmeraser drill", "lmeraser drill --erase 3 --restores 10 --json"]


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--erase", type=int, default=2, metavar="N", help="how many people, drawn at random (2)")
    add("--restores", type=int, default=3, metavar="N", help="random restores beside each store alone and all (3)")
    add("--keep", type=Path, metavar="FOLDER", help="let the copy stay there; it holds everybody's records")


def act(options: argparse.Namespace) -> Result:
    from flows.project import Project
    from flows.restore.drill import drill

    project = Project.find()
    report, path = drill(project, options.erase, options.restores, options.keep)
    lines = [
        f"{', '.join(restored.stores):<40} back {restored.back}, after reapply {restored.came_back}, certified "
        f"{restored.certified}, deleted {restored.deleted}, {'clean' if restored.clean else 'NOT CLEAN'}, "
        f"{'equal' if restored.equal else 'NOT EQUAL'}, {restored.seconds:.1f} s"
        for restored in report.rounds
    ]
    counts = report.counts()
    name = path.relative_to(project.layout.root).as_posix()
    lines.append(f"{counts['came_back']} came back in {counts['restores']} restores ({counts['seconds']} s); report: {name}")
    return counts | {"report": name}, lines
