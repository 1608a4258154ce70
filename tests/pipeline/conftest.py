"""The small real project, built once."""

import shutil
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
