"""`lmeraser slots N`: slots for params.yaml, and the pipeline files that hold them (`flows/dvc/pipeline_files.py`)."""

import argparse

from flows.cli.command import BAD_INPUT, Result

HELP = "append slots to params.yaml, and write the pipeline files that hold them"
EXIT_CODES = {0: "params.yaml and the pipeline files hold that many", 1: "a check or a step failed", 2: BAD_INPUT}
EXAMPLES = ["lmeraser slots 64"]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("count", type=int, metavar="N", help="how many there shall be; as many as now: write the files anew")


def act(options: argparse.Namespace) -> Result:
    from flows.dvc.pipeline_files import grow
    from flows.project import Project, workspace
    from lmeraser.core.errors import ProjectError

    project = Project.find()
    with workspace(project):
        begun = [request for request in project.ledger.all(open_only=True) if request.batch_id]
        if begun:  # the copies of locks that they keep for a crash are divided among files as the locks were
            raise ProjectError(f"{len(begun)} requests are in progress; run `lmeraser resume`, then retry")
        result = grow(project.layout, options.count)
    added = f"{result['added'][0]} to {result['added'][-1]}" if result["added"] else "none"
    return result, [
        f"slots               {result['slots']} (added: {added})",
        f"files written       {', '.join(result['files']) or 'none'}",
        "next                raise skeleton.leaves in params.yaml to use them, then `lmeraser build`",
    ]
