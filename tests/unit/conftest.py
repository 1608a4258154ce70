"""One tiny trained network for all tests that need one, one fake project, and a project that purge reads."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from builders import Lab, make_lab
from clocks import DAY, Clock
from door_client import LIMITS, NAME, Client
from doorway import Doorway, doorway
from fake_pipeline import FakePipeline, fakes, replace, still_faked
from mixes import ROWS
from served import ServedProject

from flows.serving.running import application
from lmeraser.serve.live import LiveModel
from unit.yard import Yard, make_yard


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return make_lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def fake_template(tmp_path_factory: pytest.TempPathFactory) -> FakePipeline:
    """Never change it, take `pipeline`."""
    folder = tmp_path_factory.mktemp("fake")
    with fakes(folder):
        return FakePipeline.build(folder / "built")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> FakePipeline:
    """A project of `mixes.ROWS`. Never change it, copy it."""
    folder = tmp_path_factory.mktemp("rows")
    with fakes(folder):
        return FakePipeline.build(folder / "template", ROWS)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where fake projects of a test's own may be built, and the seam that lets the product run on them. For a test, not for a
    module: a worker may be given a test of another module in between."""
    (tmp_path / "temporary").mkdir()
    replace(monkeypatch, tmp_path / "temporary")
    return tmp_path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None]:
    """A fake that outlives its test makes another one fail, far from here: the one that left it fails."""
    yield
    assert still_faked() == []


@pytest.fixture
def pipeline(fake_template: FakePipeline, temporary: Path) -> FakePipeline:
    """A fake project with a remote, to do with as a test likes."""
    return fake_template.copy(temporary / "fake")


@pytest.fixture
def way(pipeline: FakePipeline) -> Iterator[Doorway]:
    """The door of a fake project."""
    with pipeline.process() as project, doorway(project) as made:
        yield made


@pytest.fixture(scope="session")
def served_template(tmp_path_factory: pytest.TempPathFactory, lab: Lab) -> ServedProject:
    """Never change it, take `served_project`."""
    return ServedProject.build(tmp_path_factory.mktemp("served") / "built", lab, {})


@pytest.fixture(scope="module")
def steady(served_template: ServedProject) -> LiveModel:
    """The model of a project that nothing changes."""
    return served_template.live()


@pytest.fixture(scope="module")
def model(served_template: ServedProject) -> Iterator[LiveModel]:
    """What `ask` asks; read, and at the end closed."""
    with served_template.live() as opened:
        opened.current()
        yield opened


@pytest.fixture(scope="module")
def ask(model: LiveModel) -> Iterator[Client]:
    """A client of the model server."""
    app, pool = application(model, NAME, LIMITS)
    yield Client(app)
    pool.close()


@pytest.fixture
def served_project(served_template: ServedProject, tmp_path: Path) -> ServedProject:
    """A built project with a tiny model, to do with as a test likes."""
    return served_template.copy(tmp_path / "served")


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Yard:
    """No state yet; Prefect and DVC look for their own files below the test's folder."""
    for name in ("PREFECT_HOME", "XDG_CONFIG_HOME", "DVC_SITE_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return make_yard(tmp_path / "project")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    clock.rule(monkeypatch)
    return clock


@pytest.fixture
def patient(temporary: Path, clock: Clock) -> FakePipeline:
    """A project whose requests may be withdrawn for a day."""
    return FakePipeline.build(temporary / "fake", remote=False, service={"grace_s": DAY})
