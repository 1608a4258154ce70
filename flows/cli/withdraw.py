"""`lmeraser withdraw`: whoever sent a request takes it back within its grace; the model is again the one from before it."""

import argparse

from flows.cli.command import BAD_INPUT, Result

HELP = "take a request back within its grace (service.grace_s): the served model is again the one from before it"
EXIT_CODES = {0: "withdrawn", 1: "a check or a step failed", 2: f"{BAD_INPUT}: e.g. the grace is over"}
EXAMPLES = ["lmeraser withdraw 5eed0000-0000-4000-8000-000000000001"]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("request_id", metavar="UUID")


def act(options: argparse.Namespace) -> Result:
    from flows.cli.summary import summary
    from flows.project import Project
    from flows.requests import pauses
    from lmeraser.erase.requests import check_request_id

    project = Project.find()
    request = pauses.withdraw(project, check_request_id(options.request_id))
    return summary(project, request), [f"request {request.request_id} is withdrawn; nothing was erased for it"]
