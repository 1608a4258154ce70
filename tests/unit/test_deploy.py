"""What is given for containers holds to what can be told without an engine: no root, no secret, nothing of people."""

import fnmatch
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from builders import ROOT

from flows.service import health

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = [line.split(maxsplit=1) for line in DOCKERFILE.replace("\\\n", " ").splitlines() if line and line[0] != "#"]
IGNORED = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]


PRIVATE = (
    ".lmeraser",
    "artifacts",
    ".dvc/cache",
    ".dvc/tmp",
    ".dvc/config.local",
    "certificates",
    "data/people",
    ".demo",
    ".bench",
)


def values(name: str) -> list[str]:
    return [words[1] for words in INSTRUCTIONS if words[0] == name]


def test_image_is_pinned_runs_as_nobody_special_and_is_watched() -> None:
    [base] = values("FROM")
    assert ":" in base
    assert not base.endswith(":latest")
    assert values("USER")[-1] == "10001:10001"
    assert [words[0] for words in INSTRUCTIONS].index("USER") < [words[0] for words in INSTRUCTIONS].index("COPY")
    assert "flows.service.health" in values("HEALTHCHECK")[0]
    assert values("CMD")[-1].startswith("["), "no shell in between: signals reach the worker"
    assert not values("ADD")
    assert not any(word in DOCKERFILE.lower() for word in ("password=", "secret=", "aws_", "curl", "--privileged"))


@pytest.mark.parametrize("path", PRIVATE)
def test_nothing_of_people_and_no_key_is_sent_to_the_engine(path: str) -> None:
    kept = [pattern[1:] for pattern in IGNORED if pattern.startswith("!")]
    assert any(fnmatch.fnmatch(path, pattern) for pattern in IGNORED if not pattern.startswith("!"))
    assert not any(fnmatch.fnmatch(path, pattern) for pattern in kept)


def test_kept_files_are_the_project_s_own_lists() -> None:
    kept = [pattern[1:] for pattern in IGNORED if pattern.startswith("!")]
    assert all(path.startswith("data/") for path in kept)
    assert {"data/erased.json", "data/digits.csv"} <= set(kept)


def test_pods_have_no_root_no_privileges_no_secret_and_a_limit() -> None:
    [manifest] = yaml.safe_load_all((ROOT / "deploy" / "kubernetes-workers.yaml").read_text(encoding="utf-8"))
    pod = manifest["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == values("USER")[-1]
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert "env" not in container, "addresses and passwords come from secrets"
    assert {"memory", "nvidia.com/gpu"} <= container["resources"]["limits"].keys()
    assert not container["image"].endswith(":latest")
    assert manifest["spec"]["selector"]["matchLabels"].items() <= manifest["spec"]["template"]["metadata"]["labels"].items()
    named = {
        module for module in container["args"] + container["livenessProbe"]["exec"]["command"] if module.startswith("flows.")
    }
    assert named == {"flows.service.worker", "flows.service.health"}


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.headers.get("Authorization") == "Basic dXNlcjpvcGVu" else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HTTPServer]:
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).touch()
    monkeypatch.setenv("LMERASER_PROJECT", str(tmp_path))
    with HTTPServer(("127.0.0.1", 0), Answering) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{made.server_port}/api")
        yield made
        made.shutdown()


def test_health_tells_a_server_that_answers_from_one_that_refuses_or_is_away(
    server: HTTPServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "user:open")
    health.main()
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "user:wrong")
    assert "status 401" in str(health.problem())
    server.shutdown()
    server.server_close()
    with pytest.raises(SystemExit):
        health.main()
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "wrong" not in line
