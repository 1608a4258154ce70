"""The Prefect flow `forget`: what `lmeraser resume` does, as tasks that people can watch.

Prefect stores parameters, logs, results, artifacts and exception text, so only ids of requests, counts and names of slots ever
enter it: no subject, no path. Steps are idempotent and their state is in the ledger, so a crashed run is simply run again.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, cast
from uuid import UUID

from prefect import flow, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from flows.project import Project, workspace
from flows.requests import intake
from flows.requests.coordinator import Result, Runner, run_open
from flows.run.waves import Workers
from flows.service.fan_out import workers_of
from flows.service.storable_errors import storable_errors, without_words
from lmeraser.core.errors import LmeraserError, RequestError, StepFailedError
from lmeraser.erase.batches import BatchRecord
from lmeraser.erase.requests import check_request_id
from lmeraser.erase.states import CERTIFIED, WAY

# The server refuses a run with another parameter, so that no name can come in by mistake and be stored.
UUID_PATTERN = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
RequestId = Annotated[str, Field(pattern=UUID_PATTERN)]


class Approval(RunInput):
    """What the form of a waiting run asks for."""

    approved_by: str


class PrefectRunner(Runner):
    """Runs steps as tasks, clusters on workers, and shows the blast radius and the progress as artifacts of the run."""

    def __init__(self) -> None:
        self._progress: UUID | None = None

    def run(self, state: str, act: Callable[[], Result]) -> Result:
        results: list[Result] = []  # not returned by the task: Prefect stores what a task returns
        problem: list[LmeraserError] = []

        @task(name=state, persist_result=False, cache_policy=NO_CACHE, log_prints=False)
        def step() -> None:
            try:
                results.append(act())
            except LmeraserError as error:
                problem.append(error)
                raise without_words(error) from None

        try:
            step()
        except StepFailedError:
            if problem:
                raise problem[0] from None
            raise
        return results[0]

    def workers(self, project: Project, batch: BatchRecord) -> Workers | None:
        return workers_of(project, batch.batch_id)

    def planned(self, batch: BatchRecord, ids: Sequence[str]) -> None:
        plan = batch.plan.to_json()
        counts = {name: plan[name] for name in ("records_removed", "records_retrained", "records_total", "clusters_total")}
        named = {name: plan[name] for name in ("slots_retrained", "slots_emptied", "parts")}
        rows = [{"what": "requests", "count": len(ids), "which": ""}]
        rows += [{"what": name.replace("_", " "), "count": count, "which": ""} for name, count in counts.items()]
        rows += [{"what": name.replace("_", " "), "count": len(of), "which": ", ".join(of)} for name, of in named.items()]
        for request_id in ids:
            create_table_artifact(rows, key=f"blast-radius-{request_id}", description="What this erasure touches")

    def reached(self, state: str, ids: Sequence[str]) -> None:
        share = 100 * WAY.index(state) / (len(WAY) - 1)
        if self._progress is None:
            self._progress = cast("UUID", create_progress_artifact(share, key="erasure-progress", description="Erasure"))
        update_progress_artifact(self._progress, share)


def show_certificate(project: Project, request_id: str, certificate: str) -> None:
    """The certificate, as the artifact of a run."""
    text = (project.layout.root / certificate).read_text(encoding="utf-8")
    create_markdown_artifact(
        f"Check it offline: `lmeraser verify {certificate}`\n\n```json\n{text}\n```\n",
        key=f"certificate-{request_id}",
        description="Signed certificate of an erasure (in-toto Statement in DSSE)",
    )


def wait_for_approval(project: Project, request_id: str) -> None:
    """Suspend the run until somebody approves it, here or with `lmeraser approve`."""
    request = intake.validate(project, project.ledger.get(request_id))
    if intake.needs_approval(project, request):
        given = suspend_flow_run(wait_for_input=Approval, key=f"approve-{request_id}", timeout=30 * 24 * 3600)
        if given is not None and intake.needs_approval(project, project.ledger.get(request_id)):
            intake.approve(project, request_id, given.approved_by)


@flow(name="forget", flow_run_name="forget-{request_id}", persist_result=False, log_prints=False, validate_parameters=False)
@storable_errors
def forget(request_id: RequestId) -> str:
    """Carry out a request that the ledger has, and with it all that wait; returns the certificate's file name.

    Empty while the request's grace lasts: the sweep starts another run then.
    """
    identity = check_request_id(request_id)
    project = Project.find()
    wait_for_approval(project, identity)
    with workspace(project):
        request = project.ledger.get(identity)
        if request.is_open:
            intake.accept(project, request, solved=False)
            run_open(project, PrefectRunner(), retry_failed=request.state == "failed")
    request = project.ledger.get(identity)
    if request.in_grace(project.ledger.time()):
        return ""
    if request.state != CERTIFIED or request.certificate is None:
        if request.is_open:
            raise StepFailedError(f"request {identity} is still open at {request.reached}: {request.problem or 'see the ledger'}")
        raise RequestError(f"request {identity} is {request.state}: {request.reason}")
    show_certificate(project, identity, request.certificate)
    return request.certificate
