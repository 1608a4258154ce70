"""Hand stages to workers as runs of the deployment `run-stages`, and wait for all of them."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException

from flows.project import Project
from flows.run.handout import new_job, open_job
from flows.run.waves import Seconds, Workers, shares
from lmeraser.core.errors import StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.core.progress import say

POOL, DEPLOYMENT = "gpu", "run-stages/run-stages"
ATTEMPTS = 3  # a worker may die; another one, or the next, tries again
A_WORKER = 4  # runs for each worker, where there is enough to do: one that dies or is slow costs a quarter of its share
LEAST = 8  # stages of a run, if every worker has one: each run starts a process of its own and imports torch
MOST = 500  # stages of a run, about: Prefect stores their names
PATIENCE_S = (5, 20, 60)  # between questions that the server did not answer


def workers_of(project: Project, name: str) -> Workers | None:
    """Who runs what stands apart, by `service.fan_out`. Args: name: of the batch, or BUILD."""
    where = project.params.service.fan_out
    if where == "here":
        return None
    in_place = _in_this_folder if where == "workers" else _in_clones
    return lambda names: in_place(project, name, names)


def _in_this_folder(project: Project, name: str, names: Sequence[str]) -> Seconds:
    job_id = new_job(name)
    with open_job(project.layout, job_id):
        return _on_workers(project.layout, job_id, names, clone=False)


def _in_clones(project: Project, name: str, names: Sequence[str]) -> Seconds:
    from flows.run.clones import publish, take_results, withdraw

    job_id = new_job(name)
    publish(project, job_id, names)
    try:
        seconds = _on_workers(project.layout, job_id, names, clone=True)
        take_results(project, names)
    finally:
        withdraw(project, job_id)
    return seconds


def _on_workers(layout: Layout, job_id: str, names: Sequence[str], clone: bool) -> Seconds:
    """Run stages in as many shares as keep the pool's workers busy. Raises: StepFailedError once every share has ended."""
    count = runs_for(len(names), _online())
    divided = [share for share in shares(names, layout, count) if share]

    def run(number: int) -> float:
        share = divided[number]
        title = _title(share)
        for attempt in range(1, ATTEMPTS + 1):
            # For a key that it knows Prefect returns the old run, even if that crashed: each try has its own key.
            ended = _ended(job_id, share, clone, key=f"{job_id}-{number}-{attempt}")
            # It does not raise when the run failed: its state tells.
            if ended.state is not None and ended.state.is_completed():
                return (ended.end_time - ended.start_time).total_seconds() if ended.end_time and ended.start_time else 0.0
            say(f"fan-out: {title}: try {attempt} of {ATTEMPTS} ended {ended.state.name if ended.state else 'without a state'}")
        raise StepFailedError(f"{title} failed on workers in {ATTEMPTS} attempts; read the worker's log, then retry")

    with ThreadPoolExecutor(max_workers=max(1, len(divided))) as threads:
        return dict(zip(map(_title, divided), threads.map(run, range(len(divided))), strict=True))


def runs_for(stages: int, workers: int) -> int:
    """How many runs a wave becomes: one for each worker, up to A_WORKER where that leaves LEAST stages to each."""
    wanted = min(A_WORKER * workers, max(workers, stages // LEAST))
    return max(min(stages, wanted), -(-stages // MOST))


def _title(share: Sequence[str]) -> str:
    return f"{share[0]} and {len(share) - 1} more" if len(share) > 1 else share[0]


def _online() -> int:
    """How many workers of the pool the server hears of; at least one, for which the runs wait."""
    try:
        with get_client(sync_client=True) as client:
            workers = client.read_workers_for_work_pool(POOL)
    except (httpx.HTTPError, PrefectException) as error:
        raise StepFailedError(
            f"the Prefect server did not tell its workers ({type(error).__name__}); check it and retry"
        ) from None
    online = sum(worker.status == "ONLINE" for worker in workers)
    if not online:
        say(f"fan-out: no worker of the pool {POOL} is online; waiting for one")
    return max(1, online)


def _ended(job_id: str, share: Sequence[str], clone: bool, key: str) -> FlowRun:
    """A run that has ended. Where the server is away for a moment it is asked again by the same key, which is the same run."""
    for wait_s in (*PATIENCE_S, None):
        try:
            run = run_deployment(
                DEPLOYMENT,
                parameters={"job_id": job_id, "stages": list(share), "clone": clone},
                idempotency_key=key,
                timeout=None,
                poll_interval=1,
                as_subflow=False,
            )
            return cast("FlowRun", run)
        except ObjectNotFound:
            raise StepFailedError(
                f"the Prefect server has no deployment {DEPLOYMENT}; run `prefect --no-prompt deploy --all` in the project's "
                "folder and retry"
            ) from None
        except (httpx.HTTPError, PrefectException) as error:
            problem = type(error).__name__
        if wait_s is not None:
            time.sleep(wait_s)
    raise StepFailedError(
        f"the Prefect server gave no answer for a run of {DEPLOYMENT} ({problem}); see that it runs, then retry"
    )
