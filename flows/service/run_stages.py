"""The Prefect flow `run-stages`: stages of one job on one worker, one worker a GPU (`python -m flows.service.worker --limit 1`).

The worker serves either the same folder as the coordinator, or a clone of its own that shares a DVC remote with it.
"""

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.project import Project
from flows.run.handout import JOB_ID, check_job, taking_part
from flows.run.warm_client import run_chains
from flows.service.storable_errors import storable_errors

JobId = Annotated[str, Field(pattern=JOB_ID)]
Stages = Annotated[list[Annotated[str, Field(pattern="^[a-z]{1,16}@[a-z][a-z0-9]{0,15}$")]], Field(min_length=1)]


@flow(name="run-stages", flow_run_name="run-{job_id}", persist_result=False, log_prints=False, validate_parameters=False)
@storable_errors
def run_stages(job_id: JobId, stages: Stages, clone: bool = False) -> None:
    """Run stages one after the other. Raises: RequestError, StepFailedError."""
    project = Project.find()
    check_job(job_id, stages, project.params)
    if clone:
        from flows.run.clones import work_in_clone

        work_in_clone(project, job_id, stages)
        return
    with taking_part(project.layout, job_id):
        run_chains(project.layout, [stages])
