"""The Prefect flow `tune-cluster` of older coordinators: one cluster on one worker. Newer ones ask for `run-stages`.

It stays so that a run that was scheduled before an update ends as it began.
"""

import re
from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.project import Project
from flows.run.warm_client import run_chains
from flows.service.storable_errors import storable_errors
from lmeraser.core.errors import RequestError
from lmeraser.pipeline.files import stage_names

Slot = Annotated[str, Field(pattern="^[a-z][a-z0-9]{0,15}$")]
BATCH_ID = "^[0-9a-f-]{1,64}$"
BatchId = Annotated[str, Field(pattern=BATCH_ID)]


@flow(name="tune-cluster", flow_run_name="tune-{slot}", persist_result=False, log_prints=False, validate_parameters=False)
@storable_errors
def tune_cluster(batch_id: BatchId, slot: Slot, clone: bool = False) -> None:
    """Tune one cluster. Raises: RequestError, StepFailedError."""
    project = Project.find()
    if slot not in project.params.slots:
        raise RequestError(
            "the slot is not listed in params.yaml; give coordinator and worker the same code and params, then retry"
        )
    if not re.fullmatch(BATCH_ID, batch_id):  # a deployment need not enforce the pattern, and the id becomes a file's name
        raise RequestError("the batch id is not valid; expected 1 to 64 hexadecimal digits and hyphens")
    names = stage_names("tune", [slot])
    if clone:
        from flows.run.clones import work_in_clone

        work_in_clone(project, batch_id, names)
        return
    run_chains(project.layout, [names])
