"""`lmeraser resume`: carry out what is open, and try again what failed."""

import argparse

from flows.cli.command import BAD_INPUT, Result
from flows.cli.receiving import add_accept_unknown

HELP = "finish what was interrupted or failed"
EXIT_CODES = {
    0: "nothing is open any more but what waits for approval",
    1: "a check or a step failed; the request stays open: mend what the line says, then `lmeraser resume` again",
    2: BAD_INPUT,
    3: "blocked: a request needs --include-public, or remotes hold objects that need --accept-unknown",
}
EXAMPLES = ["lmeraser resume", "lmeraser resume --accept-unknown"]


def arguments(parser: argparse.ArgumentParser) -> None:
    add_accept_unknown(parser)


def act(options: argparse.Namespace) -> Result:
    from flows.cli.summary import summary
    from flows.project import Project, workspace
    from flows.requests.coordinator import run_open

    project = Project.find(options.accept_unknown)
    with workspace(project):
        finished = run_open(project, retry_failed=True)
    lines = [f"{request.request_id}  {request.state}" for request in finished] or ["nothing was open"]
    return {"finished": [summary(project, request) for request in finished]}, lines
