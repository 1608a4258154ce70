"""`lmeraser status`: one request, or all of them and what is odd about the project."""

import argparse
from typing import TYPE_CHECKING, Any

from flows.cli.command import BAD_INPUT, Result

if TYPE_CHECKING:
    from flows.project import Project

HELP = "requests, their states, and what is late"
EXIT_CODES = {0: "told, also if requests are late or failed", 1: "a check or a step failed", 2: BAD_INPUT}
EXAMPLES = ["lmeraser status", "lmeraser status 5eed0000-0000-4000-8000-000000000001 --json"]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("request_id", nargs="?", metavar="UUID")


def act(options: argparse.Namespace) -> Result:
    from flows.project import Project

    project = Project.find()
    return _of_request(project, options.request_id) if options.request_id else _of_all(project)


def _of_request(project: "Project", request_id: str) -> Result:
    from flows.cli.summary import summary, timing_lines
    from lmeraser.erase.requests import check_request_id

    request = project.ledger.get(check_request_id(request_id))
    result = summary(project, request)
    lines = [f"{name:<20}{value}" for name, value in result.items() if value is not None and name != "timings"]
    return result, [*lines, *(timing_lines(request) if request.timings else [])]


def _of_all(project: "Project") -> Result:
    from flows.cli.summary import missing_from_list, older_ledger, outdated_exports, summary
    from lmeraser.erase.states import PROPOSED

    summaries = [summary(project, request) for request in project.ledger.all()]
    late = sum(request["late"] for request in summaries)
    lines = [_line(request) for request in summaries]
    if late:
        lines.append(f"{late} requests are late")
    proposed = sum(request["state"] == PROPOSED for request in summaries)
    if proposed:
        lines.append(
            f"{proposed} are proposed, and in effect for nobody: `lmeraser approve --proposed --by NAME`, or `lmeraser cancel`"
        )
    missing, missing_lines = missing_from_list(project)
    outdated, outdated_lines = outdated_exports(project)
    restored, restored_lines = older_ledger(project)
    result = {"requests": summaries, "late": late} | ({"proposed": proposed} if proposed else {}) | missing | outdated | restored
    lines += missing_lines + outdated_lines + restored_lines
    rebuilds = due_rebuilds(project)
    if rebuilds:
        result["rebuilds_due"] = rebuilds
        lines.append(f"{rebuilds} erasures that the audit key chose wait to be rebuilt: `lmeraser audit --due`")
    environments = mixing_line(project)
    if environments:
        result["mixed_environments"] = environments
        lines.append(environments)
    untold, untold_lines = untold_deliveries(project)
    undated, undated_lines = missing_timestamps(project)
    return result | untold | undated, [*lines, *untold_lines, *undated_lines] or ["no request yet"]


def _line(request: dict[str, Any]) -> str:
    from flows.cli.summary import pause_line

    pause = pause_line(request)
    waits = f"  {pause}" if pause else ""
    late = "  LATE" if request["late"] else ""
    problem = f"  {request['problem']}" if request["problem"] else ""
    return f"{request['request_id']}  {request['state']:<12} due {request['due_at'][:10]}{late}{waits}{problem}"


def untold_deliveries(project: "Project") -> Result:
    """What hooks and callbacks were not told yet though it was tried, and what was given up; nothing where all were told."""
    from flows.door.outbox import outlook
    from flows.door.store import Store

    store = Store(project.layout)
    waiting, given_up = outlook(store) if store.exists else (0, 0)
    if not (waiting or given_up):
        return {}, []
    line = f"hooks and callbacks: {waiting} wait for another try, {given_up} were given up; `lmeraser hook list` shows why"
    return {"untold": {"waiting": waiting, "given_up": given_up}}, [line]


def missing_timestamps(project: "Project") -> Result:
    """Which certificates wait for their timestamp, and why; nothing where none does, or params cannot be read."""
    from dataclasses import asdict

    from flows.door.timestamps import outlook
    from lmeraser.core.errors import LmeraserError

    try:
        found = outlook(project)
    except LmeraserError:
        return {}, []
    return ({"timestamps": asdict(found)}, [f"timestamps: {line}" for line in found.lines]) if found else ({}, [])


def due_rebuilds(project: "Project") -> int:
    """How many chosen erasures wait for their rebuild; 0 where the audit key cannot be read, which the next request tells."""
    from flows.audit.due import due
    from lmeraser.core.errors import LmeraserError

    try:
        return len(due(project))
    except LmeraserError:
        return 0


def mixing_line(project: "Project") -> str | None:
    """Which artifacts were made in another environment than the rest; None where none was, or where there is no whole model."""
    from lmeraser.core.errors import LmeraserError
    from lmeraser.pipeline.mixing import environments_of, mixed

    try:
        return mixed(environments_of(project.layout, project.params))
    except LmeraserError:
        return None
