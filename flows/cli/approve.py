"""`lmeraser approve`: a request takes effect that waits for approval (`service.approval`), or that was only proposed."""

import argparse
from typing import TYPE_CHECKING

from flows.cli.command import BAD_INPUT, Result

if TYPE_CHECKING:
    from lmeraser.erase.requests import Request

HELP = "let requests take effect that wait for approval, or that were proposed"
EXIT_CODES = {
    0: "approved and in effect, or approved and refused with the reason",
    1: "a check or a step failed",
    2: BAD_INPUT,
}
EXAMPLES = [
    'lmeraser approve 5eed0000-0000-4000-8000-000000000001 --by "A. Reviewer"',
    'lmeraser approve --proposed --by "A. Reviewer"',
]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("request_id", nargs="*", metavar="UUID")
    parser.add_argument("--proposed", action="store_true", help="all that is proposed, beside what is named")
    parser.add_argument("--by", required=True, metavar="NAME", help="who approves; kept in the ledger")


def act(options: argparse.Namespace) -> Result:
    from flows.cli.summary import summary
    from flows.project import Project
    from flows.requests import intake, proposals
    from flows.service.client import announce, resume_waiting
    from lmeraser.core.errors import BadInputError
    from lmeraser.erase.requests import check_request_id
    from lmeraser.erase.states import PROPOSED

    project = Project.find()
    # All are known before the first is approved.
    named = [project.ledger.get(check_request_id(text)) for text in dict.fromkeys(options.request_id)]
    if options.proposed:
        named += [each for each in project.ledger.all() if each.state == PROPOSED and each not in named]
    if not named:
        found = "and no request is proposed" if options.proposed else "nor --proposed"
        raise BadInputError(f"`lmeraser approve`: no UUID was given, {found}; `lmeraser status` lists the requests")
    proposed = [request.request_id for request in named if request.state == PROPOSED]
    approved = proposals.accept(project, proposed, options.by) if proposed else []
    approved += [intake.approve(project, each.request_id, options.by) for each in named if each.request_id not in proposed]
    for request in approved:
        if request.is_open and not resume_waiting(project.layout, request.request_id, options.by):
            announce(project.layout, request.request_id)
    lines = [f"request {request.request_id} is approved and {_now(request)}" for request in approved]
    told = [summary(project, request) for request in approved]
    return told[0] if len(told) == 1 else {"requests": told}, lines


def _now(request: "Request") -> str:
    return request.state + (f": {request.reason}" if request.reason and not request.is_open else "")
