"""Stages run by real workers: of the same folder, and of a separate clone that shares nothing but a DVC remote."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sandbox import AWS, CANARY, Sandbox
from service import Service, served, wait

from lmeraser.pipeline.locks import read_outs

pytestmark = [pytest.mark.slow, pytest.mark.campaign("a server, workers, a clone: ten minutes"), pytest.mark.timeout(1800)]


def calm_outs(project: Sandbox, folder: Path, people: list[str]) -> dict[str, str]:
    """dvc.lock of the same erasure without server or workers."""
    shutil.copytree(project.root, folder, symlinks=True)
    calm = Sandbox(folder)
    calm.json("forget", "--subject", *people)
    return read_outs(calm.root / "dvc.lock")


def several(project: Sandbox) -> list[str]:
    """People of at least two clusters."""
    people = project.people()
    return next(
        [people[0], other]
        for other in people[1:]
        if project.json("plan", "--subject", people[0], other)["clusters_retrained"] > 1
    )


def certified(service: Service, people: list[str]) -> list[str]:
    """Erase people in one request; returns the workers that tuned."""
    request = service.project.json("submit", "--subject", *people)["request_id"]
    wait(lambda: service.states()[request] == "certified", 300, "the certificate")
    runs = service.runs("run-stages")
    assert all(run["state_type"] == "COMPLETED" for run in runs), runs
    tuned = [name for run in runs for name in run["parameters"]["stages"]]
    assert len(tuned) == len(set(tuned)) == service.project.json("status", request)["clusters_retrained"] > 1
    return [str(run["created_by"]) for run in runs]


def test_workers_of_one_folder_tune_clusters_side_by_side_with_the_same_bytes(project: Sandbox, tmp_path: Path) -> None:
    people = several(project)
    outs = calm_outs(project, tmp_path / "calm", people)
    project.set_params(service={"fan_out": "workers"})
    with served(project, "--workers", "2") as service:
        certified(service, people)
    assert read_outs(project.root / "dvc.lock") == outs


@contextmanager
def cloned(project: Sandbox, service: Service, folder: Path) -> Iterator[Path]:
    """A worker with a clone of the project."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", str(project.root), str(clone)], check=True)
    assert not (clone / "people").exists()
    own = {"LMERASER_PROJECT": str(clone), "PYTHONPATH": str(clone), "PREFECT_HOME": str(folder / "prefect")}
    api = {"PREFECT_API_URL": service.url, "PREFECT_API_AUTH_STRING": service.auth}
    worker = subprocess.Popen(
        [sys.executable, "-m", "flows.service.worker", "--pool", "gpu", "--name", "clone", "--limit", "1"],
        cwd=clone,
        env=os.environ | own | api | {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))},
        stdin=subprocess.DEVNULL,
        stdout=(folder / "worker.log").open("w"),
        stderr=subprocess.STDOUT,
    )
    try:
        yield clone
    finally:
        worker.send_signal(signal.SIGINT)
        worker.wait(timeout=60)


def commit(project: Sandbox, *paths: str) -> None:
    git = ["git", "-C", str(project.root), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run([*git, "commit", "--quiet", "--message", "changed", "--", *paths], check=True)


def require_wiped(project: Sandbox, clone: Path) -> None:
    """Nothing lies in the clone but what git has, and nothing of a person."""
    listed = subprocess.run(["git", "-C", str(clone), "ls-files"], check=True, capture_output=True, text=True).stdout.split("\n")
    files = [path for path in clone.rglob("*") if path.is_file() and ".git" not in path.parts and "__pycache__" not in path.parts]
    extra = sorted({path.relative_to(clone).as_posix() for path in files} - set(listed))
    assert [name for name in extra if not name.startswith((".dvc/tmp", ".lmeraser"))] == []
    for path in (clone / ".lmeraser", clone / ".dvc"):
        for file in path.rglob("*"):
            assert not file.is_file() or CANARY.encode() not in file.read_bytes(), file


def test_clone_with_a_shared_remote_tunes_with_the_same_bytes_and_keeps_nothing(project: Sandbox, tmp_path: Path) -> None:
    people = several(project)
    outs = calm_outs(project, tmp_path / "calm", people)
    (tmp_path / "disk").mkdir()
    project.dvc("remote", "add", "--default", "disk", str(tmp_path / "disk"))
    project.set_params(service={"fan_out": "clones"})
    commit(project, ".dvc/config", "params.yaml")
    with served(project, "--workers", "0") as service, cloned(project, service, tmp_path) as clone:
        certified(service, people)
    assert read_outs(project.root / "dvc.lock") == outs
    assert project.dvc("status").strip().endswith("up to date.")
    audit = project.json("audit", "--rebuild", "--stores")
    assert (audit["equal"], audit["clean"]) == (True, True)
    assert not list((tmp_path / "disk").rglob("lmeraser-jobs/*")), "the job was withdrawn"
    require_wiped(project, clone)
    assert json.loads((project.root / "metrics" / "metrics.json").read_bytes())


# builds


def unbuilt(project: Sandbox) -> dict[str, str]:
    """Take away all that was built. Returns: its outs."""
    outs = read_outs(project.root / "dvc.lock")
    for name in ("artifacts", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(project.root / name, ignore_errors=True)
    (project.root / "dvc.lock").unlink()
    return outs


def logs(project: Sandbox) -> Path:
    return project.root / ".lmeraser" / "logs"


def started(service: Service) -> str:
    """Start a run of the deployment `build`; returns its id."""
    deployments: list[dict[str, Any]] = service.post("/deployments/filter", {"deployments": {"name": {"any_": ["build"]}}})[1]
    status, run = service.post(f"/deployments/{deployments[0]['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    assert status < 300
    return str(run["id"])


def finished(service: Service, build: str) -> None:
    def state() -> str:
        return str(next(run["state_type"] for run in service.runs("build") if run["id"] == build))

    wait(lambda: state() in ("COMPLETED", "FAILED", "CRASHED"), 900, "the end of the build")
    assert state() == "COMPLETED", (logs(service.project) / "worker.log").read_text()[-3000:]


def kinds_handed_out(service: Service) -> dict[str, set[str]]:
    """Stages of the runs that ended well, by kind."""
    names = [
        name for run in service.runs("run-stages") if run["state_type"] == "COMPLETED" for name in run["parameters"]["stages"]
    ]
    return {kind: {name for name in names if name.startswith(f"{kind}@")} for kind in {name.partition("@")[0] for name in names}}


def kill_a_run(project: Sandbox) -> bool:
    """Kill a process that runs stages for the service, if there is one now."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            mine = (path / "cwd").resolve() == project.root and b"prefect.engine" in (path / "cmdline").read_bytes()
            if mine and b"run_stages" in (path / "environ").read_bytes():
                os.kill(int(path.name), signal.SIGKILL)
                return True
        except OSError:
            continue
    return False


def test_workers_of_one_folder_build_side_by_side_with_the_same_bytes_though_one_of_their_runs_is_killed(
    project: Sandbox,
) -> None:
    outs = unbuilt(project)
    project.set_params(service={"fan_out": "workers"})
    with served(project, "--workers", "2", "--warm", "0") as service:
        build = started(service)
        wait(lambda: kill_a_run(project), 300, "a run of stages")
        finished(service, build)
        done = kinds_handed_out(service)
        crashed = [run for run in service.runs("run-stages") if run["state_type"] != "COMPLETED"]
        parameters = json.dumps([run["parameters"] for run in service.runs("run-stages")])
    assert done == {"embed": {"embed@p00", "embed@p01"}, "tune": {f"tune@c0{number}" for number in range(4)}}
    assert len(crashed) == 1
    assert CANARY not in parameters
    assert read_outs(project.root / "dvc.lock") == outs
    assert project.dvc("status").strip().endswith("up to date.")


def test_clones_build_over_a_bucket_with_the_same_bytes_and_go_on_when_people_came(
    project: Sandbox, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=s3)
    client.create_bucket(Bucket="fleet")
    outs = unbuilt(project)
    project.dvc("remote", "add", "--default", "far", "s3://fleet/some/prefix")
    project.dvc("remote", "modify", "far", "endpointurl", s3)
    project.set_params(service={"fan_out": "clones"})
    commit(project, ".dvc/config", "params.yaml")
    manifest = project.root / "people" / "manifest.csv"
    rows = project.manifest
    with served(project, "--workers", "0", "--warm", "0") as service, cloned(project, service, tmp_path) as clone:
        finished(service, started(service))
        assert read_outs(project.root / "dvc.lock") == outs
        first, runs = kinds_handed_out(service), len(service.runs("run-stages"))
        assert {kind: len(names) for kind, names in first.items()} == {"embed": 2, "tune": 4}
        assert "embed p00: " in (tmp_path / "worker.log").read_text()
        assert "embed p00: " not in (logs(project) / "worker.log").read_text(), "results are taken, and nothing is run again"
        came = rows[rows["subject"] == project.people()[0]].assign(subject=f"{CANARY}-new")
        new = came.assign(path=[f"images/{CANARY}-new-{number}.png" for number in range(len(came))])
        for old, path in zip(came["path"], new["path"], strict=True):
            shutil.copy(project.root / "people" / old, project.root / "people" / path)
        pd.concat([rows, new]).to_csv(manifest, index=False)
        finished(service, started(service))
        assert len(service.runs("run-stages")) > runs
        require_wiped(project, clone)
    grown = read_outs(project.root / "dvc.lock")
    assert grown != outs
    shutil.copytree(
        project.root, tmp_path / "calm", symlinks=True, ignore=shutil.ignore_patterns("artifacts", "dvc.lock", "cache")
    )
    calm = Sandbox(tmp_path / "calm")
    assert calm.lmeraser("build").returncode == 0
    assert read_outs(calm.root / "dvc.lock") == grown
    listed = client.list_objects_v2(Bucket="fleet", Prefix="some/prefix/lmeraser-jobs").get("Contents", [])
    assert listed == [], "the job was withdrawn"
