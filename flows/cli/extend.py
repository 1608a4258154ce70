"""`lmeraser extend`: a request's due date moves, once, with a reason (GDPR, article 12(3))."""

import argparse

from flows.cli.command import BAD_INPUT, Result

HELP = "move a request's due date, once and before it, by at most 60 days (GDPR, article 12(3)); tell the person why"
EXIT_CODES = {0: "extended", 1: "a check or a step failed", 2: f"{BAD_INPUT}: e.g. it is late, or was extended already"}
EXAMPLES = ['lmeraser extend 5eed0000-0000-4000-8000-000000000001 --days 60 --reason "many requests at once"']


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("request_id", metavar="UUID")
    parser.add_argument("--days", required=True, type=int, metavar="N", help="1 to 60")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="without names; `lmeraser status UUID` shows it")


def act(options: argparse.Namespace) -> Result:
    from flows.cli.summary import summary
    from flows.project import Project
    from flows.requests import pauses
    from lmeraser.erase.requests import check_request_id

    project = Project.find()
    request = pauses.extend(project, check_request_id(options.request_id), options.days, options.reason)
    return summary(project, request), [f"request {request.request_id} is due {request.due_at[:10]}"]
