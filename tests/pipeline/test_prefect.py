"""The Prefect flow does the same steps on a real (temporary) Prefect server, and nobody's name gets into its database."""

from pathlib import Path

import pytest
from sandbox import CANARY, Sandbox

from lmeraser.pipeline.locks import read_outs

pytestmark = pytest.mark.slow

# Twice, as after a crash: one effect. In one process, because its server takes half a minute to come up.
RUN = "import sys; from flows.service.forget import forget; print(forget(sys.argv[1])); print(forget(sys.argv[1]))"


@pytest.mark.campaign("a minute; the flow by a real server, its workers and events: test_service.py")
def test_flow_carries_out_a_submitted_request_and_prefect_learns_its_id_only(project: Sandbox, tmp_path: Path) -> None:
    home = tmp_path / "prefect"
    env = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    person = project.people()[0]
    request_id = project.json("submit", "--subject", person)["request_id"]
    before = read_outs(project.root / "dvc.lock")
    done = project.python("-c", RUN, request_id, env=env)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split()[-2:]
    assert first == second
    assert first.endswith(f"{request_id}.json")
    assert len(list((project.root / "certificates").glob("*.json"))) == 1
    assert project.json("status", request_id)["state"] == "certified"
    assert read_outs(project.root / "dvc.lock") != before
    stored = [path for path in home.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in stored)
    assert any(request_id.encode() in path.read_bytes() for path in stored)
    for path in stored:
        assert CANARY.encode() not in path.read_bytes(), path.name
