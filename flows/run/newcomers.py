"""What people who are to come would retrain, asked of the stage `newcomers`."""

import json
from pathlib import Path
from typing import Any

from flows.dvc import command as dvc
from flows.project import Project
from flows.run.warm_client import run_chains
from lmeraser.core.errors import BadInputError
from lmeraser.erase.additions import plan_addition
from lmeraser.erase.facts import gather_facts
from lmeraser.pipeline.files import stage_names


def plan_newcomers(project: Project, manifest: str) -> dict[str, Any]:
    """Changes nothing. Raises: BadInputError, ProjectError if the pipeline is not up to date; StepFailedError."""
    layout, params = project.layout, project.params
    if not Path(manifest).exists():
        raise BadInputError("--add: there is no such file or folder; expected a manifest of the new records, or its folder")
    if params.cluster.method == "anchors":
        raise BadInputError("--add: with cluster.method anchors every cluster may change; run `lmeraser build` to see")
    dvc.require_current(layout)
    try:
        run_chains(layout, [stage_names("newcomers", [str(Path(manifest).resolve())])])
        came = json.loads(layout.newcomers.read_bytes())
    finally:
        layout.newcomers.unlink(missing_ok=True)
    return plan_addition(gather_facts(layout, params), came)
