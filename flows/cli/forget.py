"""`lmeraser forget`: accept a request and carry it out, to the certificate."""

import argparse

from flows.cli.command import BAD_INPUT, PUBLIC, Result
from flows.cli.receiving import add_accept_unknown, add_request, receive

HELP = "erase people or single images: quarantine, remove, retrain, verify, purge, certify"
EXIT_CODES = {
    0: "certified, or the request waits for approval or for the end of its grace",
    1: "a check or a step failed; the request stays open: `lmeraser resume` goes on",
    2: f"{BAD_INPUT}, or the request is rejected",
    3: f"{PUBLIC}; or the request is on hold; or remotes hold objects that nobody can tell what they were made of, and "
    "--accept-unknown was not given",
}
EXAMPLES = [
    "lmeraser forget --subjects-from names.txt",
    "lmeraser forget --subject NAME --timings",
    "lmeraser forget --subjects-from - --request-id 5eed0000-0000-4000-8000-000000000001 --json",
]


def arguments(parser: argparse.ArgumentParser) -> None:
    add_request(parser)
    add_accept_unknown(parser)
    parser.add_argument("--timings", action="store_true", help="print where the time went")


def act(options: argparse.Namespace) -> Result:
    from flows.audit.due import due
    from flows.cli.summary import grace_line, plan_lines, scan_lines, summary, timing_lines
    from flows.project import Project, workspace
    from flows.requests import intake
    from flows.requests.coordinator import run_open
    from lmeraser.core.errors import LmeraserError
    from lmeraser.core.progress import say
    from lmeraser.erase.states import CERTIFIED

    project = Project.find(options.accept_unknown)
    request, named = receive(project, options)
    if request.is_open or request.state == "blocked":
        failed = request.state == "failed"
        solved = bool(project.params.service.grace_s)
        request = intake.accept(project, request, named.subjects, solved=solved, images=named.images)
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
            f"check it           lmeraser verify {request.certificate}",
            "prove it           lmeraser audit --rebuild --stores; review it: lmeraser review",
        ]
        if is_due:
            lines.append("rebuild is due     chosen by the audit key: lmeraser audit --due")
    elif request.in_grace(project.ledger.time()):
        lines.append(grace_line(project, request))
    else:
        lines.append(f"waits for approval: lmeraser approve {request.request_id} --by NAME")
    if options.timings:
        lines += timing_lines(request)
    return summary(project, request) | ({"rebuild_due": True} if is_due else {}), lines
