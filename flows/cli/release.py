"""`lmeraser release`: a hold ends, and the erasure that it kept waiting goes on by itself."""

import argparse

from flows.cli.command import BAD_INPUT, Result
from flows.cli.hold import add_target, check_target

HELP = "end the hold on a request, or on a person; the erasure that waited for it goes on"
EXIT_CODES = {0: "released", 1: "a check or a step failed", 2: f"{BAD_INPUT}: e.g. there is no such hold"}
EXAMPLES = ["lmeraser release 5eed0000-0000-4000-8000-000000000001", "lmeraser release --subject S"]


def arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)


def act(options: argparse.Namespace) -> Result:
    from flows.cli.summary import pause_line, summary
    from flows.project import Project
    from flows.requests import pauses
    from flows.service.client import announce

    request_id = check_target(options)
    project = Project.find()
    if request_id is None:
        requests = pauses.release_person(project, options.subject)
    else:
        requests = pauses.release_request(project, request_id)
    announced = [announce(project.layout, request.request_id) for request in requests]
    then = "the server was told" if all(announced) else "`lmeraser resume` or a server's sweep carries it out"
    told = [summary(project, request) for request in requests]
    lines = [f"{each['request_id']}  {each['state']}; {pause_line(each) or then}" for each in told]
    return {"requests": told}, ["released", *lines]
