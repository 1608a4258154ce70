"""Clusters tuned by real workers: of the same folder, and of a separate clone that shares nothing but a DVC remote."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sandbox import Sandbox
from service import Service, served, wait

from lmeraser.pipeline.locks import read_outs

pytestmark = [pytest.mark.slow, pytest.mark.campaign("a server, workers and a clone, each erasure twice: four minutes")]


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
    runs = service.runs("tune-cluster")
    assert all(run["state_type"] == "COMPLETED" for run in runs), runs
    assert len(runs) == service.project.json("status", request)["clusters_retrained"] > 1
    return [str(run["created_by"]) for run in runs]


def test_workers_of_one_folder_tune_clusters_side_by_side_with_the_same_bytes(project: Sandbox, tmp_path: Path) -> None:
    people = several(project)
    outs = calm_outs(project, tmp_path / "calm", people)
    project.set_params(service={"fan_out": "workers"})
    with served(project, "--workers", "2") as service:
        certified(service, people)
    assert read_outs(project.root / "dvc.lock") == outs


def test_clone_with_a_shared_remote_tunes_with_the_same_bytes_and_keeps_nothing(project: Sandbox, tmp_path: Path) -> None:
    people = several(project)
    outs = calm_outs(project, tmp_path / "calm", people)
    (tmp_path / "disk").mkdir()
    project.dvc("remote", "add", "--default", "disk", str(tmp_path / "disk"))
    project.set_params(service={"fan_out": "clones"})
    git = ["git", "-C", str(project.root), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run([*git, "commit", "--quiet", "--message", "remote", "--", ".dvc/config", "params.yaml"], check=True)
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(project.root), str(clone)], check=True)
    assert not (clone / "people").exists()
    tracked = sorted(path.relative_to(clone) for path in clone.rglob("*") if path.is_file() and ".git" not in path.parts)
    with served(project, "--workers", "0") as service:
        own = {"LMERASER_PROJECT": str(clone), "PYTHONPATH": str(clone), "PREFECT_HOME": str(tmp_path / "prefect")}
        api = {"PREFECT_API_URL": service.url, "PREFECT_API_AUTH_STRING": service.auth}
        here = str(Path(sys.executable).parent)
        worker = subprocess.Popen(
            [sys.executable, "-m", "flows.service.worker", "--pool", "gpu", "--name", "clone", "--limit", "1"],
            cwd=clone,
            env=os.environ | own | api | {"PATH": os.pathsep.join((here, os.environ["PATH"]))},
            stdin=subprocess.DEVNULL,
            stdout=(tmp_path / "worker.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        try:
            certified(service, people)
        finally:
            worker.send_signal(signal.SIGINT)
            worker.wait(timeout=60)
    assert read_outs(project.root / "dvc.lock") == outs
    assert project.dvc("status").strip().endswith("up to date.")
    audit = project.json("audit", "--rebuild", "--stores")
    assert (audit["equal"], audit["clean"]) == (True, True)
    assert not list((tmp_path / "disk").rglob("lmeraser-jobs/*")), "the job was withdrawn"
    left = sorted(path.relative_to(clone) for path in clone.rglob("*") if path.is_file() and ".git" not in path.parts)
    extra = [str(path) for path in left if path not in tracked and "__pycache__" not in path.parts]
    assert [name for name in extra if not name.startswith((".dvc/tmp", ".lmeraser"))] == []
    for path in (clone / ".lmeraser", clone / ".dvc"):
        for file in path.rglob("*"):
            assert not file.is_file() or b"kanarienvogel" not in file.read_bytes(), file
    assert json.loads((project.root / "metrics" / "metrics.json").read_bytes())
