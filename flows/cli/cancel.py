"""`lmeraser cancel`: end a request for which nothing was erased yet."""

import argparse

from flows.cli.command import BAD_INPUT, Result

HELP = "end a request that nothing was done for yet: one that was set aside, or came by mistake"
EXIT_CODES = {0: "cancelled", 1: "a check or a step failed", 2: f"{BAD_INPUT}: e.g. something was erased for the request already"}
EXAMPLES = ["lmeraser cancel 5eed0000-0000-4000-8000-000000000001"]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("request_id", metavar="UUID")


def act(options: argparse.Namespace) -> Result:
    from flows.cli.summary import summary
    from flows.project import Project
    from flows.requests import intake
    from lmeraser.erase.requests import check_request_id

    project = Project.find()
    request = intake.cancel(project, check_request_id(options.request_id))
    return summary(project, request), [f"request {request.request_id} is cancelled; nothing was erased for it"]
