"""One tiny trained network for all tests that need one, and a project that purge reads."""

from pathlib import Path

import pytest
from builders import Lab, make_lab

from unit.yard import Yard, make_yard


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return make_lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Yard:
    """No state yet; Prefect and DVC look for their own files below the test's folder."""
    for name in ("PREFECT_HOME", "XDG_CONFIG_HOME", "DVC_SITE_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return make_yard(tmp_path / "project")
