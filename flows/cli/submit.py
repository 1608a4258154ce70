"""`lmeraser submit`: accept a request, and leave the erasing to a server or to `lmeraser resume`."""

import argparse

from flows.cli.command import BAD_INPUT, PUBLIC, Result
from flows.cli.images import names_images
from flows.cli.receiving import add_request, receive

HELP = "accept a request: in the ledger and in effect at once; a server or `resume` carries it out"
EXIT_CODES = {
    0: "the request is in the ledger; it may still wait for approval, or for somebody to mend the project",
    1: "a check or a step failed",
    2: f"{BAD_INPUT}, or the request is rejected",
    3: f"{PUBLIC}; or the request is on hold: in effect, and not carried out",
}
EXAMPLES = ["lmeraser submit --subject NAME", "lmeraser submit --event request.json"]


def arguments(parser: argparse.ArgumentParser) -> None:
    add_request(parser)
    text = "many requests, one a row: columns subject, sha256, path (some of them) and perhaps request_id; all rows or none"
    parser.add_argument("--csv", metavar="FILE", help=f"{text}; - reads standard input")


def act(options: argparse.Namespace) -> Result:
    return _submit_rows(options) if options.csv is not None else _submit(options)


def _submit_rows(options: argparse.Namespace) -> Result:
    from flows.cli.bulk import receive_rows, refused
    from flows.cli.summary import summary
    from flows.project import Project
    from flows.requests import intake
    from flows.service.client import announce
    from lmeraser.core.errors import BadInputError, BlockedError, ProjectError
    from lmeraser.core.progress import say

    others = (options.subject, options.subjects_from, options.event, options.request_id, options.with_near)
    if any(others) or names_images(options):
        raise BadInputError("--csv names everybody and every id; leave the other options that name some out")
    project = Project.find()
    rows = receive_rows(project, options.csv, options.include_public)
    try:
        intake.accept_all(project, [request for _, request in rows])
    except ProjectError as error:
        say(f"received, and not all validated yet: {error}")
    rows = [(row, project.ledger.get(request.request_id)) for row, request in rows]
    announced = announce(project.layout, rows[0][1].request_id)
    if bad := refused(rows):
        lines = ", ".join(str(row.line) for row, _ in bad[:20]) + (" …" if len(bad) > 20 else "")
        raise BlockedError(
            f"--csv: {len(bad)} of {len(rows)} requests were refused (lines {lines}), the others are in the ledger; "
            "`lmeraser status` tells why"
        )
    then = "the server was told" if announced else "`lmeraser resume` or a server's sweep carries them out"
    told = [f"{request.request_id}  {request.state}  line {row.line}" for row, request in rows]
    return {"requests": [summary(project, request) for _, request in rows]}, [*told, f"{len(rows)} requests received; {then}"]


def _submit(options: argparse.Namespace) -> Result:
    from flows.cli.summary import grace_line, summary
    from flows.project import Project
    from flows.requests import intake
    from flows.service.client import announce
    from lmeraser.core.errors import ProjectError
    from lmeraser.core.progress import say

    project = Project.find()
    request, named = receive(project, options)
    problem = None
    try:
        request = intake.accept(project, request, named.subjects, images=named.images)
    except ProjectError as error:  # nobody can tell yet whether it is valid; it is in the ledger and will be looked at again
        problem = str(error)
        say(f"received, and not validated yet: {problem}")
    announced = announce(project.layout, request.request_id)
    result = summary(project, request) | ({"problem": problem} if problem else {})
    if intake.needs_approval(project, request):
        then = f"`lmeraser approve {request.request_id} --by NAME` puts it in effect"
    elif request.in_grace(project.ledger.time()):
        then = grace_line(project, request)
    else:
        then = "the server was told" if announced else "`lmeraser resume` or a server's sweep carries it out"
    return result, [f"request {request.request_id} is {request.state}, due {request.due_at[:10]}; {then}"]
