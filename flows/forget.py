"""The Prefect flow `forget`: the same steps as `lmeraser forget`, as tasks. It reads like the promise that it keeps.

Prefect stores parameters, logs, results and exception text, so only the request's id ever enters it: no subject, no path.
Steps are idempotent and their state is in the request's record, so a crashed run is simply run again.
"""

import os
from pathlib import Path

from prefect import flow, task

from flows import steps
from flows.steps import Project
from lmeraser.core.layout import Layout

PROJECT_VARIABLE = "LMERASER_PROJECT"  # the folder that a worker serves; else the working folder


def _project() -> Project:
    named = os.environ.get(PROJECT_VARIABLE)
    return Project(Layout.find(Path(named) if named else Path.cwd()))


@task(persist_result=False)
def remove(request_id: str) -> None:
    """Keep the subjects out from now on."""
    steps.remove(_project(), request_id)


@task(persist_result=False)
def retrain(request_id: str) -> None:
    """Run what they touched, and nothing else."""
    steps.retrain(_project(), request_id)


@task(persist_result=False)
def verify(request_id: str) -> list[str]:
    """Raises before anything is destroyed or signed."""
    return steps.verify(_project(), request_id)


@task(persist_result=False)
def clear_source(request_id: str) -> str:
    """Delete the subjects from the source, if params say so."""
    return steps.clear_source(_project(), request_id)


@task(persist_result=False)
def write_receipt(request_id: str, checks: list[str], source: str) -> str:
    """Close the request."""
    return steps.write_receipt(_project(), request_id, checks, source).name


@flow(name="forget", persist_result=False, log_prints=False)
def forget(request_id: str) -> str:
    """Carry out a request that `lmeraser submit` accepted; returns the receipt's file name."""
    project = _project()
    with steps.workspace(project), steps.attempt(project, request_id) as request:
        if request.receipt:
            return Path(request.receipt).name
        remove(request_id)
        retrain(request_id)
        checks = verify(request_id)
        source = clear_source(request_id)
        return write_receipt(request_id, checks, source)
