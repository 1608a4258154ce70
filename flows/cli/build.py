"""`lmeraser build`: bring everything that the pipeline makes up to date."""

import argparse

from flows.cli.command import BAD_INPUT, Result

HELP = "what `dvc repro` does, with fewer processes; the same bytes"
EXIT_CODES = {0: "everything is up to date", 1: "a stage failed; what was built before is whole", 2: BAD_INPUT}
EXAMPLES = ["lmeraser build", "lmeraser build --json"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing of its own."""


def act(_: argparse.Namespace) -> Result:
    import json

    from flows.project import Project, workspace
    from flows.requests.ground import keep_list
    from flows.requests.proposals import say_before_build
    from flows.requests.quarantine import renew
    from flows.run.build import build

    project = Project.find()
    with workspace(project):
        keep_list(project)
        build(project.layout, other_source=lambda: say_before_build(project))
        renew(project)
    metrics = json.loads((project.layout.metrics / "metrics.json").read_bytes())
    return metrics, [f"served accuracy     {metrics['accuracy']['served']}"]
