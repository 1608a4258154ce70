"""Work pools, and the automation that marks a run as crashed when its heartbeats stop. Safe to repeat.

A pool's template says what a run may change in how it is started. Prefect's own lets it change the command.
"""

from datetime import timedelta
from typing import Any

from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists

POOLS = ("lmeraser", "gpu")
# Nothing: no variable is known, so the server refuses a run that brings one. `env` must stay away: Prefect adds a run's variables
# to an `env` that stands here. Workers do not rely on this (flows/service/worker.py): the password changes templates, too.
TEMPLATE: dict[str, Any] = {
    "job_configuration": {"command": "python -m prefect.engine", "stream_output": True},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
AUTOMATION = "crash-runs-without-heartbeat"
# Paused and Suspended are signs of life too: a run that waits for approval sends no heartbeats.
LIFE = ["heartbeat", "Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended"]


def setup() -> None:
    with get_client(sync_client=True) as client:
        for name in POOLS:
            try:
                client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=TEMPLATE))
            except ObjectAlreadyExists:
                if client.read_work_pool(name).type == "process":  # others start containers, by templates of their own
                    client.update_work_pool(name, WorkPoolUpdate(base_job_template=TEMPLATE))
        known = {automation.name for automation in client.read_automations()}
    if AUTOMATION in known:
        return
    Automation(
        name=AUTOMATION,
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={f"prefect.flow-run.{sign}" for sign in LIFE},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=90),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message="no heartbeat for 90 s: its process is gone")],
    ).create()


if __name__ == "__main__":
    setup()
