"""`lmeraser forget`: accept a request and carry it out, to the certificate."""

import argparse

from flows.cli.carrying_out import carry_out
from flows.cli.command import BAD_INPUT, PUBLIC, Result
from flows.cli.receiving import add_accept_unknown, add_request, receive

HELP = "erase people or single images: quarantine, remove, retrain, verify, purge, certify"
EXIT_CODES = {
    0: "certified, or the request waits for approval or for the end of its grace",
    1: "a check or a step failed; the request stays open: `lmeraser resume` goes on",
    2: f"{BAD_INPUT}, or the request is rejected",
    3: f"{PUBLIC}; or the request is on hold; or remotes hold objects that nobody can tell what they were made of, and "
    "--accept-unknown was not given",
}
EXAMPLES = [
    "lmeraser forget --subjects-from names.txt",
    "lmeraser forget --subject NAME --timings",
    "lmeraser forget --subjects-from - --request-id 5eed0000-0000-4000-8000-000000000001 --json",
]


def arguments(parser: argparse.ArgumentParser) -> None:
    add_request(parser)
    add_accept_unknown(parser)
    parser.add_argument("--timings", action="store_true", help="print where the time went")


def act(options: argparse.Namespace) -> Result:
    from flows.project import Project

    project = Project.find(options.accept_unknown)
    request, named = receive(project, options)
    return carry_out(project, request, options, named.subjects, named.images)
