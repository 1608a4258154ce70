"""What `forget` and `correct` share: a request that was received is carried out, and what is told of it."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.cli.command import Result

if TYPE_CHECKING:
    from flows.project import Project
    from lmeraser.erase.requests import Request


def carry_out(
    project: "Project",
    request: "Request",
    options: argparse.Namespace,
    subjects: Sequence[str] = (),
    images: Sequence[str] = (),
) -> Result:
    """Accept a request and carry it out, to the certificate, unless it waits. Args: subjects, images: in the order given."""
    from flows.cli.summary import summary
    from flows.project import workspace
    from flows.requests import intake
    from flows.requests.coordinator import run_open
    from lmeraser.core.errors import LmeraserError
    from lmeraser.core.progress import say
    from lmeraser.erase.states import CERTIFIED

    if request.is_open or request.state == "blocked":
        failed = request.state == "failed"
        solved = bool(project.params.service.grace_s)
        request = intake.accept(project, request, subjects, solved=solved, images=images)
        if not intake.needs_approval(project, request) and not request.in_grace(project.ledger.time()):
            with workspace(project):
                try:
                    run_open(project, retry_failed=failed)
                except LmeraserError as error:
                    if project.ledger.get(request.request_id).state != CERTIFIED:
                        raise
                    say(f"another request is still open: {error}")
    request = project.ledger.get(request.request_id)
    intake.refuse(request)
    if request.certificate:
        ask_for_timestamps(project)
    lines, is_due = _lines(project, request, options)
    return summary(project, request) | ({"rebuild_due": True} if is_due else {}), lines


def ask_for_timestamps(project: "Project", at_once: bool = False) -> None:
    """Ask for those that are missing, now that no lock is held; what goes wrong is a line, and tried again another time."""
    if project.params.service.timestamp_url is None:
        return
    import asyncio

    from flows.door.timestamps import Stamping
    from lmeraser.core.errors import LmeraserError
    from lmeraser.core.progress import say

    try:
        asyncio.run(Stamping(project).round(at_once))
    except LmeraserError as error:
        say(f"timestamps: {error}")


def _lines(project: "Project", request: "Request", options: argparse.Namespace) -> tuple[list[str], bool]:
    """For people; and whether the request's erasure waits to be rebuilt."""
    from flows.audit.due import due
    from flows.cli.summary import grace_line, plan_lines, scan_lines, timestamp_lines, timing_lines
    from flows.requests import intake

    planned = intake.plan_of(project, request)
    is_due = request.request_id in due(project)
    lines = [
        *(plan_lines(planned.to_json()) if planned else []),
        f"state               {request.state} in {request.seconds:.1f} s",
    ]
    if request.certificate:
        lines += [
            *scan_lines(project, request),
            f"certificate         {request.certificate}",
            *timestamp_lines(project, request),
            f"check it           lmeraser verify {request.certificate}",
            "prove it           lmeraser audit --rebuild --stores; review it: lmeraser review",
        ]
        if is_due:
            lines.append("rebuild is due     chosen by the audit key: lmeraser audit --due")
    elif request.in_grace(project.ledger.time()):
        lines.append(grace_line(project, request))
    else:
        lines.append(f"waits for approval: lmeraser approve {request.request_id} --by NAME")
    return lines + (timing_lines(request) if options.timings else []), is_due
