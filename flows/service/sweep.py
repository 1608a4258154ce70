"""The Prefect flow `sweep`: every minute, start what the ledger still has open. An event may be lost; the ledger is not.

Two runs for one request do no harm: the second waits for the first and finds nothing left. Two sweeps at once cost twice, so the
second leaves. The lock is a file's, which the system frees whatever becomes of a process: a limit of Prefect's would keep the
slot of a run that was lost for up to five minutes, and cancel each sweep of that time.
"""

import time
from datetime import UTC, datetime, timedelta

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterName,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled

from flows.audit.due import never_rebuilt
from flows.audit.giving_way import somebody_waits
from flows.project import Project, locked_if_free
from flows.purge import prefect_events as prefect_storage
from flows.requests import intake
from flows.service.storable_errors import storable_errors
from lmeraser.core.errors import LmeraserError
from lmeraser.core.progress import say
from lmeraser.erase.requests import Request

SWEEP = "sweep"
AUDIT_DUE = "audit-due"
# A run that was killed counts as running until its missing heartbeats are noticed (`flows/service/supervisor.py` sets that up).
ALIVE = [StateType.SCHEDULED, StateType.PENDING, StateType.PAUSED, StateType.RUNNING, StateType.CANCELLING]


def _any_of(states: list[StateType]) -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=states))


def _runs(request: Request, states: list[StateType] | None) -> int:
    """How many runs of the flow `forget` there are for a request."""
    with get_client(sync_client=True) as client:
        chosen = FlowRunFilter(
            name=FlowRunFilterName(any_=[f"forget-{request.request_id}"]),
            state=_any_of(states) if states else None,
        )
        return len(client.read_flow_runs(flow_run_filter=chosen, limit=200))


def waits(request: Request, now: float | None = None) -> bool:
    """Whether an open request has nobody who works on it, and is to be carried out now. Args: now: seconds since 1970."""
    now = time.time() if now is None else now
    claimed = request.claim_id is not None and (request.lease_until or 0) > now
    return request.is_open and request.state != "failed" and not claimed and not request.is_paused(now)


@flow(name=SWEEP, persist_result=False, log_prints=False)
@storable_errors
def sweep() -> int:
    """Put in effect what was received and start what is open; returns how many runs were started."""
    project = Project.find()
    with locked_if_free(project.layout.private_state / "sweep.lock") as alone:
        if not alone:
            say("sweep: another one is under way")
            return 0
        cancel_late()
        return _swept(project)


def cancel_late() -> None:
    """Cancel the sweeps that wait since before now, for want of a worker: this one does what they would."""
    with get_client(sync_client=True) as client:
        late = FlowRunFilter(
            state=_any_of([StateType.SCHEDULED]),
            expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
        )
        for run in client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[SWEEP])), flow_run_filter=late, limit=200
        ):
            client.set_flow_run_state(run.id, Cancelled(message="a later sweep did what this one would"))


def _swept(project: Project) -> int:
    try:
        prefect_storage.clear(project.layout)
    except LmeraserError as error:
        say(f"sweep: {error}")
    project.ledger.settle_proposals()  # those whose days are over are received by that
    project.ledger.settle_holds()  # one that was released, or whose date is past, is carried out from here on
    started = 0
    for request in [request for request in project.ledger.all(open_only=True) if waits(request)]:
        try:
            now = intake.take_effect(project, intake.validate(project, request), solved=False)
        except LmeraserError as error:
            say(f"sweep: request {request.request_id} stays {request.state}: {error}")
            continue
        if not waits(now) or intake.needs_approval(project, now) or _runs(now, ALIVE):
            continue
        # The attempt is in the key: with the key of a crashed run Prefect would return that run and start none.
        run_deployment(
            "forget/forget",
            parameters={"request_id": now.request_id},
            flow_run_name=f"forget-{now.request_id}",
            idempotency_key=f"{now.request_id}-{_runs(now, None)}",
            timeout=0,
            as_subflow=False,
        )
        started += 1
        break  # it carries out all that wait; the next sweep looks again
    if not started:
        start_due(project)
    return started


def start_due(project: Project) -> bool:
    """Start the rebuild that the audit key chose, where nobody waits for an erasure. Returns whether it did.

    Not where one failed within the hour: it would fail again.
    """
    if not never_rebuilt(project) or somebody_waits(project):
        return False
    lately = FlowRunFilterStartTime(after_=datetime.now(UTC) - timedelta(hours=1))
    named = FlowRunFilterName(any_=[AUDIT_DUE])
    with get_client(sync_client=True) as client:
        running = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=named, state=_any_of(ALIVE)), limit=1)
        failed = FlowRunFilter(name=named, state=_any_of([StateType.FAILED, StateType.CRASHED]), start_time=lately)
        if running or client.read_flow_runs(flow_run_filter=failed, limit=1):
            return False
    try:
        run_deployment(f"{AUDIT_DUE}/{AUDIT_DUE}", flow_run_name=AUDIT_DUE, timeout=0, as_subflow=False)
    except ObjectNotFound:
        say("sweep: a rebuild is due, and the server has no deployment audit-due; run `prefect --no-prompt deploy --all` once")
        return False
    return True
