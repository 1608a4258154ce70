"""`lmeraser approve`: a request takes effect that waits for approval (`service.approval`)."""

import argparse

from flows.cli.command import BAD_INPUT, Result

HELP = "let requests take effect that wait for approval"
EXIT_CODES = {0: "approved and in effect", 1: "a check or a step failed", 2: BAD_INPUT}
EXAMPLES = ['lmeraser approve 5eed0000-0000-4000-8000-000000000001 --by "A. Reviewer"']


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("request_id", nargs="+", metavar="UUID")
    parser.add_argument("--by", required=True, metavar="NAME", help="who approves; kept in the ledger")


def act(options: argparse.Namespace) -> Result:
    from flows.cli.summary import summary
    from flows.project import Project
    from flows.requests import intake
    from flows.service.client import announce, resume_waiting
    from lmeraser.erase.requests import check_request_id

    project = Project.find()
    # All are known before the first is approved.
    ids = [project.ledger.get(check_request_id(text)).request_id for text in dict.fromkeys(options.request_id)]
    approved = []
    for request_id in ids:
        approved.append(intake.approve(project, request_id, options.by))
        if not resume_waiting(project.layout, request_id, options.by):
            announce(project.layout, request_id)
    lines = [f"request {request.request_id} is approved and {request.state}" for request in approved]
    told = [summary(project, request) for request in approved]
    return told[0] if len(told) == 1 else {"requests": told}, lines
