"""`lmeraser resume`: carry out what is open, and try again what failed."""

import argparse

from flows.cli.command import BAD_INPUT, Result
from flows.cli.receiving import add_accept_unknown

HELP = "finish what was interrupted or failed"
EXIT_CODES = {
    0: "nothing is open any more but what waits for approval, for a hold or for the end of its grace",
    1: "a check or a step failed; the request stays open: mend what the line says, then `lmeraser resume` again",
    2: BAD_INPUT,
    3: "blocked: a request needs --include-public, or remotes hold objects that need --accept-unknown",
}
EXAMPLES = ["lmeraser resume", "lmeraser resume --accept-unknown"]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("request_id", nargs="*", metavar="UUID", help="of failed requests try these alone again; else all")
    add_accept_unknown(parser)


def act(options: argparse.Namespace) -> Result:
    from flows.cli.carrying_out import ask_for_timestamps
    from flows.cli.summary import pause_line, summary
    from flows.project import Project, workspace
    from flows.requests.coordinator import run_open
    from lmeraser.erase.requests import check_request_id

    project = Project.find(options.accept_unknown)
    only = [project.ledger.get(check_request_id(text)).request_id for text in options.request_id]
    with workspace(project):
        finished = run_open(project, retry_failed=True, only=only)
        waiting = [summary(project, request) for request in project.ledger.all(open_only=True)]
    ask_for_timestamps(project, at_once=True)
    lines = [f"{request.request_id}  {request.state}" for request in finished]
    lines += [f"{each['request_id']}  {pause}" for each in waiting if (pause := pause_line(each))]
    lines = lines or ["nothing was open"]
    return {"finished": [summary(project, request) for request in finished]}, lines
