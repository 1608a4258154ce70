"""`lmeraser status`: one request, or all of them and what is odd about the project."""

import argparse
from typing import TYPE_CHECKING, Any

from flows.cli.command import BAD_INPUT, Result

if TYPE_CHECKING:
    from flows.project import Project

HELP = "requests, their states, and what is late"
EXIT_CODES = {0: "told, also if requests are late or failed", 1: "a check or a step failed", 2: BAD_INPUT}


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

    summaries = [summary(project, request) for request in project.ledger.all()]
    late = sum(request["late"] for request in summaries)
    lines = [_line(request) for request in summaries]
    if late:
        lines.append(f"{late} requests are late")
    missing, missing_lines = missing_from_list(project)
    outdated, outdated_lines = outdated_exports(project)
    restored, restored_lines = older_ledger(project)
    result = {"requests": summaries, "late": late} | missing | outdated | restored
    lines += missing_lines + outdated_lines + restored_lines
    environments = mixing_line(project)
    if environments:
        result["mixed_environments"] = environments
        lines.append(environments)
    return result, lines or ["no request yet"]


def _line(request: dict[str, Any]) -> str:
    late = "  LATE" if request["late"] else ""
    problem = f"  {request['problem']}" if request["problem"] else ""
    return f"{request['request_id']}  {request['state']:<12} due {request['due_at'][:10]}{late}{problem}"


def mixing_line(project: "Project") -> str | None:
    """Which artifacts were made in another environment than the rest; None where none was, or where there is no whole model."""
    from lmeraser.core.errors import LmeraserError
    from lmeraser.pipeline.mixing import environments_of, mixed

    try:
        return mixed(environments_of(project.layout, project.params))
    except LmeraserError:
        return None
