"""`lmeraser upkeep`: what `make serve` does once a day: delete what is past its period, and propose who may have to go."""

import argparse

from flows.cli.command import BAD_INPUT, Result

HELP = "once a day: delete logs and words past their period (section retention), then do what `propose` does"
EXIT_CODES = {0: "done", 1: "a check or a step failed", 2: BAD_INPUT}
EXAMPLES = ["lmeraser upkeep", "lmeraser upkeep --json"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing of its own."""


def act(_: argparse.Namespace) -> Result:
    from flows.cli.propose import lines_of
    from flows.project import Project
    from flows.service.upkeep import told, upkeep

    cleared, outcome = upkeep(Project.find())
    lines = [f"deleted             {cleared.logs} logs, {cleared.words} words of people about requests"]
    return told(cleared, outcome), [*lines, *lines_of(outcome)]
