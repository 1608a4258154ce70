"""The small real project, built once, and an S3 server."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox import Sandbox, make_project


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """The built project; never change it, take `project`."""
    sandbox = make_project(tmp_path_factory.mktemp("built") / "project")
    done = sandbox.lmeraser("build")
    assert done.returncode == 0, done.stderr
    return sandbox


@pytest.fixture
def project(built: Sandbox, tmp_path: Path) -> Sandbox:
    """A copy of the built project, to do with as a test likes."""
    shutil.copytree(built.root, tmp_path / "project", symlinks=True)
    return Sandbox(tmp_path / "project")


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
