"""The small real project, built once; a scene of it to purge; and an S3 server."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, open_browser
from sandbox import Sandbox, make_project
from scene import Scene, victim
from sharing import shared

from lmeraser.erase.erased import ErasedList, key_path, load_or_create_key


@pytest.fixture(scope="session", autouse=True)
def _preloaded(preloaded: None) -> None:
    """For every test of a pipeline."""


def build(folder: Path) -> None:
    done = make_project(folder / "project").lmeraser("build")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """The built project; never change it, take `project`."""
    return Sandbox(shared(tmp_path_factory, "built", build) / "project")


@pytest.fixture
def project(built: Sandbox, tmp_path: Path) -> Sandbox:
    """A copy of the built project, to do with as a test likes."""
    shutil.copytree(built.root, tmp_path / "project", symlinks=True)
    return Sandbox(tmp_path / "project")


@pytest.fixture(scope="session")
def prepared(built: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Never change it, take `scene`."""
    return Scene(shared(tmp_path_factory, "scene", lambda folder: prepare(built, folder)) / "project")


def prepare(built: Sandbox, folder: Path) -> None:
    """Fill a folder with the scene and its remote."""
    shutil.copytree(built.root, folder / "project", symlinks=True)
    scene = Scene(folder / "project")
    (folder / "remote").mkdir()
    scene.dvc("remote", "add", "--default", "disk", "../remote")
    scene.git("checkout", "--quiet", "-B", "main")
    scene.dvc("repro", "--quiet", "--force", "--single-item", "split", "cluster")  # `build` leaves no run entries
    scene.git("add", "--all")
    scene.git("commit", "--quiet", "--message", "everybody")
    scene.dvc("push", "--quiet", "--run-cache")

    scene.git("checkout", "--quiet", "-b", "with")
    scene.set_params(tune={"epochs": 1})
    scene.dvc("repro", "--quiet")
    scene.git("commit", "--quiet", "--all", "--message", "with her")
    scene.dvc("push", "--quiet", "--run-cache")

    manifest = (scene.root / "people" / "manifest.csv").read_bytes()
    scene.git("checkout", "--quiet", "-b", "other", "main")
    scene.set_params(tune={"epochs": 2})
    rows = scene.manifest
    rows[~rows["subject"].isin([victim(scene), scene.people()[7]])].to_csv(scene.root / "people" / "manifest.csv", index=False)
    scene.dvc("repro", "--quiet")
    scene.git("commit", "--quiet", "--all", "--message", "other people")
    scene.dvc("push", "--quiet", "--run-cache")

    (scene.root / "people" / "manifest.csv").write_bytes(manifest)
    scene.git("checkout", "--quiet", "main")
    scene.dvc("checkout", "--quiet")
    key = load_or_create_key(key_path(scene.layout.private_state))
    ErasedList.read(scene.layout.erased).add([key.pseudonym(victim(scene))], key).write(scene.layout.erased)
    scene.dvc("repro", "--quiet")


@pytest.fixture
def scene(prepared: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A copy of the project with its remote; temporary and Prefect's files of its own."""
    shutil.copytree(prepared.root.parent, tmp_path / "scene", symlinks=True)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    return Scene(tmp_path / "scene" / "project")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of an S3 server of its own process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("w") as stream:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stderr=stream, stdout=stream)
        try:
            deadline = time.monotonic() + 60
            while "Running on" not in log.read_text():
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened
