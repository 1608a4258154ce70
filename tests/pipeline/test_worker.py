"""The server's password is no shell: whatever it lets somebody ask for, workers run this project's flows and nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox import make_project
from service import Service, served, wait

from flows.project import locked_if_free
from flows.service.server_setup import POOLS, TEMPLATE

pytestmark = pytest.mark.slow

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of a project that nobody has built: no flow needs it here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_WORKER_QUERY_SECONDS", "1")
        with served(make_project(tmp_path_factory.mktemp("worker") / "project"), "--warm", "0", "--workers", "0") as running:
            yield running


def deployed(service: Service, name: str, **changes: Any) -> str:
    """The id of a deployment of the flow `sweep`, which does nothing while nothing is open. Without a schedule."""
    flow = service.post("/flows/filter", {"flows": {"name": {"any_": ["sweep"]}}})[1][0]["id"]
    plain = {
        "name": name,
        "flow_id": flow,
        "entrypoint": "flows/service/sweep.py:sweep",
        "work_pool_name": "lmeraser",
        "path": ".",
    }
    status, made = service.post("/deployments/", plain | changes)
    assert status < 300, (name, status)
    return str(made["id"])


def test_a_sweep_cancels_those_that_wait_for_a_worker_and_leaves_one_that_is_under_way_alone(service: Service) -> None:
    nobody = deployed(service, "nobody works there", work_pool_name="gpu")
    past = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2020-01-01T00:00:00Z"}}
    late = [started(service, nobody, state=past) for _ in range(3)]
    own = deployed(service, "own")
    with locked_if_free(service.project.root / ".lmeraser" / "sweep.lock") as alone:
        assert alone
        assert ended(service, started(service, own)) == "COMPLETED"
        assert {run["state_type"] for run in service.runs("sweep") if run["id"] in late} == {"SCHEDULED"}
    assert ended(service, started(service, own)) == "COMPLETED"
    assert {run["state_type"] for run in service.runs("sweep") if run["id"] in late} == {"CANCELLED"}


def test_no_deployment_has_a_limit_that_a_lost_run_could_use_up(service: Service) -> None:
    """Also where an older release set one: Prefect keeps the slot of a run that was lost, and cancels all others."""
    setup = {"PREFECT_API_URL": service.url, "PREFECT_API_AUTH_STRING": service.auth}
    deployments = service.post("/deployments/filter", {})[1]
    sweep = next(deployment for deployment in deployments if deployment["name"] == "sweep")
    assert service.ask("PATCH", f"/deployments/{sweep['id']}", {"concurrency_limit": 1})[0] < 300
    done = service.project.python("-m", "prefect", "--no-prompt", "deploy", "--all", env=setup)
    assert done.returncode == 0, done.stderr
    assert not [one["name"] for one in service.post("/deployments/filter", {})[1] if one["global_concurrency_limit"]]


def shell(marker: Path) -> dict[str, Any]:
    """Job variables that would leave a file behind."""
    return {"command": f"touch {marker}", "env": {"PREFECT__FLOW_ENTRYPOINT": str(marker)}, "working_dir": str(marker.parent)}


def ended(service: Service, run_id: str) -> str:
    state = ""

    def over() -> bool:
        nonlocal state
        runs = service.post("/flow_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})[1]
        state = runs[0]["state_type"]
        return state in ENDED

    wait(over, 120, "the end of the run")
    return state


def started(service: Service, deployment: str, **run: Any) -> str:
    """The id of a run that the server takes."""
    status, made = service.post(f"/deployments/{deployment}/create_flow_run", run)
    assert status < 300, status
    return str(made["id"])


def template(service: Service, pool: str) -> Any:
    work_pools = service.post("/work_pools/filter", {})[1]
    return next(work_pool for work_pool in work_pools if work_pool["name"] == pool)["base_job_template"]


def test_server_takes_no_run_that_brings_a_command_an_environment_or_a_folder(service: Service, tmp_path: Path) -> None:
    deployment = deployed(service, "plain")
    for name, value in shell(tmp_path / "marker").items():
        assert service.post(f"/deployments/{deployment}/create_flow_run", {"job_variables": {name: value}})[0] in (409, 422), name
    assert ended(service, started(service, deployment)) == "COMPLETED"


def prefects_own_template() -> dict[str, Any]:
    from prefect.workers.process import ProcessWorker  # a second, also where this module is collected and not run

    return ProcessWorker.get_default_base_job_template()


def test_pool_with_prefects_own_template_is_mended_when_the_service_starts(service: Service) -> None:
    for pool in POOLS:
        patched(service, pool, prefects_own_template())
        assert "command" in template(service, pool)["variables"]["properties"]
    env = {"PREFECT_API_URL": service.url, "PREFECT_API_AUTH_STRING": service.auth}
    done = service.project.python("-m", "flows.service.server_setup", env=env)
    assert done.returncode == 0, done.stderr
    assert [template(service, pool) for pool in POOLS] == [TEMPLATE] * len(POOLS)


def patched(service: Service, pool: str, changed: dict[str, Any]) -> None:
    code = (
        "import json, sys\nfrom prefect.client.orchestration import get_client\n"
        "from prefect.client.schemas.actions import WorkPoolUpdate\n"
        "with get_client(sync_client=True) as client:\n"
        "    client.update_work_pool(sys.argv[1], WorkPoolUpdate(base_job_template=json.loads(sys.argv[2])))\n"
    )
    env = {"PREFECT_API_URL": service.url, "PREFECT_API_AUTH_STRING": service.auth}
    done = service.project.python("-c", code, pool, json.dumps(changed), env=env)
    assert done.returncode == 0, done.stderr


def test_worker_takes_no_command_from_a_pool_that_allows_any(service: Service, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    patched(service, "lmeraser", prefects_own_template())
    try:
        run = started(service, deployed(service, "any command"), job_variables=shell(marker))
        assert ended(service, run) == "COMPLETED"
    finally:
        patched(service, "lmeraser", TEMPLATE)
    assert not marker.exists()


def test_worker_takes_neither_steps_nor_code_from_a_deployment(service: Service, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "evil.py").write_text(f"from prefect import flow\nopen({str(marker)!r}, 'w')\n@flow\ndef sweep(): ...\n")
    steps = [{"prefect.deployments.steps.run_shell_script": {"script": f"touch {marker}"}}]
    folder = [{"prefect.deployments.steps.set_working_directory": {"directory": str(tmp_path)}}]
    own = "flows/service/sweep.py:sweep"
    runs = {}
    for name, entrypoint, pull, end in (
        ("steps", own, steps, "COMPLETED"),
        ("folder", own, folder, "COMPLETED"),
        ("code", f"{tmp_path}/evil.py:sweep", [], "CRASHED"),
        ("code and steps", "evil.py:sweep", [*steps, *folder], "CRASHED"),
        ("module", "evil.sweep", folder, "CRASHED"),
    ):
        made = deployed(service, name, entrypoint=entrypoint, pull_steps=pull, path=str(tmp_path))
        runs[name] = (started(service, made), end)
    for name, (run, end) in runs.items():
        assert ended(service, run) == end, name
    assert not marker.exists()
