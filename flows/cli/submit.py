"""`lmeraser submit`: accept a request, and leave the erasing to a server or to `lmeraser resume`."""

import argparse

from flows.cli.command import BAD_INPUT, PUBLIC, Result
from flows.cli.receiving import add_request, receive

HELP = "accept a request: in the ledger and in effect at once; a server or `resume` carries it out"
EXIT_CODES = {
    0: "the request is in the ledger; it may still wait for approval, or for somebody to mend the project",
    1: "a check or a step failed",
    2: f"{BAD_INPUT}, or the request is rejected",
    3: f"{PUBLIC}; or the request is on hold: in effect, and not carried out",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    add_request(parser)


def act(options: argparse.Namespace) -> Result:
    from flows.cli.summary import grace_line, summary
    from flows.project import Project
    from flows.requests import intake
    from flows.service.client import announce
    from lmeraser.core.errors import ProjectError
    from lmeraser.core.progress import say

    project = Project.find()
    request, subjects = receive(project, options)
    problem = None
    try:
        request = intake.accept(project, request, subjects)
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
