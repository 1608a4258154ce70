"""`lmeraser hold`: nothing of a request, or of a person, is destroyed until a day is over, or until `lmeraser release`."""

import argparse
from typing import TYPE_CHECKING, Any

from flows.cli.command import BAD_INPUT, Result
from lmeraser.core.errors import BadInputError

if TYPE_CHECKING:
    from flows.project import Project

HELP = "let nothing of a request, or of a person, be destroyed until a day is over; its people stay out of the served model"
EXIT_CODES = {
    0: "on hold",
    1: "a check or a step failed",
    2: f"{BAD_INPUT}: e.g. the person is erased already, or is being erased",
}
EXAMPLES = [
    'lmeraser hold 5eed0000-0000-4000-8000-000000000001 --until 2027-06-30 --reason "file 42"',
    'lmeraser hold --subject S --until 2027-06-30 --reason "file 42"',
]


def arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("--until", required=True, metavar="DATE", help="the last day of it, as YYYY-MM-DD, in UTC")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="without names; `lmeraser status UUID` shows it")


def add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("request_id", nargs="?", metavar="UUID")
    parser.add_argument("--subject", metavar="S", help="a person, as the manifest names them, whether or not somebody asked")


def check_target(options: argparse.Namespace) -> str | None:
    """The request's id; None where a person is named. Raises: BadInputError unless there is one of the two."""
    from lmeraser.erase.requests import check_request_id

    if (options.request_id is None) == (options.subject is None):
        raise BadInputError(f"`lmeraser {options.command}` takes a request's UUID, or --subject S; give one of the two")
    return None if options.request_id is None else check_request_id(options.request_id)


def act(options: argparse.Namespace) -> Result:
    from flows.project import Project
    from flows.requests import pauses

    request_id = check_target(options)
    project = Project.find()
    if request_id is None:
        requests = pauses.hold_person(project, options.subject, options.until, options.reason)
    else:
        requests = [pauses.hold_request(project, request_id, options.until, options.reason)]
    which = f"request {request_id} is" if request_id else "the person is"
    lines = [f"{which} on hold until {options.until}; `lmeraser release` ends it before"]
    return _result(project, requests, options.until), [*lines, *(f"{each.request_id}  {each.state}" for each in requests)]


def _result(project: "Project", requests: list[Any], until: str) -> dict[str, Any]:
    from flows.cli.summary import summary

    return {"held_until": until, "requests": [summary(project, request) for request in requests]}
