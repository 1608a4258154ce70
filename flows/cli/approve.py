"""`lmeraser approve`: a request takes effect that waits for approval (`service.approval`)."""

import argparse

from flows.cli.command import BAD_INPUT, Result

HELP = "let a request take effect that waits for approval"
EXIT_CODES = {0: "approved and in effect", 1: "a check or a step failed", 2: BAD_INPUT}
EXAMPLES = ['lmeraser approve 5eed0000-0000-4000-8000-000000000001 --by "A. Reviewer"']


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("request_id", metavar="UUID")
    parser.add_argument("--by", required=True, metavar="NAME", help="who approves; kept in the ledger")


def act(options: argparse.Namespace) -> Result:
    from flows.cli.summary import summary
    from flows.project import Project
    from flows.requests import intake
    from flows.service.client import announce, resume_waiting
    from lmeraser.erase.requests import check_request_id

    project = Project.find()
    request = intake.approve(project, check_request_id(options.request_id), options.by)
    if not resume_waiting(project.layout, request.request_id, options.by):
        announce(project.layout, request.request_id)
    return summary(project, request), [f"request {request.request_id} is approved and {request.state}"]
