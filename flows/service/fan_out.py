"""Hand clusters to workers as runs of the deployment `tune-cluster`, and wait for all of them."""

import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from flows.project import Project
from flows.run.build import Tuner
from lmeraser.core.errors import StepFailedError
from lmeraser.core.progress import say
from lmeraser.erase.batches import BatchRecord
from lmeraser.pipeline.files import stage_names

ATTEMPTS = 3  # a worker may die; another one, or the next, tries again


def tuner(project: Project, batch: BatchRecord) -> Tuner | None:
    """Who tunes the clusters of a batch, by `service.fan_out`."""
    where = project.params.service.fan_out
    if where == "here":
        return None
    if where == "workers":
        return lambda slots: _on_workers(batch.batch_id, slots, clone=False)

    def in_clones(slots: Sequence[str]) -> dict[str, float]:
        from flows.run.clones import publish, take_results, withdraw

        publish(project, batch.batch_id)
        try:
            seconds = _on_workers(batch.batch_id, slots, clone=True)
            take_results(project, slots)
        finally:
            withdraw(project, batch.batch_id)
        return seconds

    return in_clones


def _on_workers(batch_id: str, slots: Sequence[str], clone: bool) -> dict[str, float]:
    # For a key that it knows Prefect returns the old run, even if that crashed or its files are gone: each try has its own key.
    token = secrets.token_hex(4)

    def tune(slot: str) -> float:
        for attempt in range(1, ATTEMPTS + 1):
            run = cast(
                "FlowRun",
                run_deployment(
                    "tune-cluster/tune-cluster",
                    parameters={"batch_id": batch_id, "slot": slot, "clone": clone},
                    idempotency_key=f"{batch_id}-{slot}-{token}-{attempt}",
                    timeout=None,
                    poll_interval=1,
                    as_subflow=False,
                ),
            )
            # It does not raise when the run failed: its state tells.
            if run.state is not None and run.state.is_completed():
                return (run.end_time - run.start_time).total_seconds() if run.end_time and run.start_time else 0.0
            say(f"fan-out: {slot}: try {attempt} of {ATTEMPTS} ended {run.state.name if run.state else 'without a state'}")
        raise StepFailedError(f"{slot} could not be tuned on a worker in {ATTEMPTS} attempts; read the worker's log, then retry")

    with ThreadPoolExecutor(max_workers=max(1, len(slots))) as threads:
        return dict(zip(stage_names("tune", slots), threads.map(tune, slots), strict=True))
