"""make demo: build a model, erase a person, and prove it, in a copy of this project (`.demo/`); your git state stays as it is.

About 3 minutes on 2 cores.
"""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from flows import git
from flows.audit.rebuild import copy_code, rebuild
from flows.project import Project, workspace
from flows.requests.coordinator import run_open
from flows.requests.intake import accept, plan_of, receive
from flows.run.build import build
from lmeraser.core.errors import LmeraserError
from lmeraser.core.layout import Layout
from lmeraser.core.progress import say
from lmeraser.data.records import TRAIN, read_records
from lmeraser.erase.erased import ErasedList

FOLDER = ".demo"


def prepare(origin: Layout) -> Project:
    """A fresh copy of the project with a git history of its own."""
    target = origin.root / FOLDER
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    copy_code(origin.root, target)
    layout = Layout(target)
    ErasedList(None, frozenset()).write(layout.erased)  # the copy has no key to read another list with
    return Project(layout)


def somebody(project: Project) -> str:
    """A person with training records: the first by name."""
    parts = (project.layout.part(part) for part in project.params.parts)
    return min(record.subject for path in parts for record in read_records(path, TRAIN))


def accuracy(project: Project) -> dict[str, Any]:
    accuracies: dict[str, Any] = json.loads((project.layout.metrics / "metrics.json").read_bytes())["accuracy"]
    return accuracies


def table(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def demo() -> bool:
    """Returns whether the audit found the rebuilt artifacts equal."""
    project = prepare(Layout.find(Path.cwd()))
    with workspace(project):
        say("1/3 building a model of scikit-learn's handwritten digits (about a minute)")
        start = time.monotonic()
        build(project.layout)
        built = time.monotonic() - start
        git.commit_all(project.layout.root, "lmeraser demo", "demo@localhost", "A model of everybody")
        before = accuracy(project)
        say("2/3 erasing one person (about half a minute)")
        request = receive(project, [somebody(project)], None, False)
        accept(project, request, solved=False)
        run_open(project)
        request = project.ledger.get(request.request_id)
        after = accuracy(project)
        say("3/3 building again without that person, in a clean copy, to compare every artifact (about a minute)")
        comparison = rebuild(project)
    planned = plan_of(project, request)
    plan = planned.to_json() if planned else {}
    rows = [
        ("accuracy before", f"{before['served']:.3f}  (one linear head on all private data: {before['linear_head']:.3f})"),
        ("accuracy after", f"{after['served']:.3f}  (one linear head on all private data: {after['linear_head']:.3f})"),
        ("records removed", f"{plan['records_removed']} of 1 person"),
        ("clusters retrained", f"{len(plan['slots_retrained'])} of {plan['clusters_total']}"),
        ("records retrained", f"{plan['records_retrained']} of {plan['records_total']}"),
        ("seconds to build", f"{built:.0f}"),
        ("seconds to forget", f"{request.seconds:.0f}"),
        ("certificate", f"{FOLDER}/{request.certificate}"),
        ("audit --rebuild", f"{'equal' if comparison.equal else 'NOT EQUAL'} ({comparison.artifacts} artifacts compared)"),
    ]
    print(table(rows))
    return comparison.equal


def main() -> None:
    try:
        equal = demo()
    except LmeraserError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
