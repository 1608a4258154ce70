"""What every test has in common: the stages' settings, a derandomised hypothesis, and no key from outside."""

import atexit
import functools
import gc
import warnings
from collections.abc import Generator, Iterator
from types import ModuleType

from lmeraser.core import determinism

determinism.require()  # before anything imports numpy

import preloading  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile(
    "lmeraser", max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("lmeraser")

ABOUT_FLOWS = ("flows", "fake_pipeline", "histories", "fake_dvc")  # it, and what tests reach it by
LONGEST = ("test_service.py", "test_interruptions.py", "test_sample.py", "test_build.py")


@pytest.fixture(autouse=True)
def _no_key_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key or an error file that the developer's shell names must not reach a test."""
    monkeypatch.delenv("LMERASER_SUBJECT_KEY_FILE", raising=False)
    monkeypatch.delenv("LMERASER_ERROR_FILE", raising=False)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="great_expectations")


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands of sandboxes start in a hundredth of a second rather than in three."""
    with preloading.server(tmp_path_factory.mktemp("preloaded")):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The garbage collector leaves alone what collecting imports: walking it again and again was a sixth of quick's time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        gc.enable()
        atexit.register(gc.unfreeze)  # else nanobind's libraries report all that the interpreter's end leaves as leaked


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits longest goes first: a test of two minutes that begins last leaves the other workers idle.

    Coverage is that of flows by quick tests: tracing makes any code half as slow again, and what names nothing of flows, and
    what is slow, goes untraced.
    """
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        if item.get_closest_marker("slow") or (isinstance(item, pytest.Function) and not _names_flows(item.module)):
            item.add_marker(pytest.mark.no_cover)


@functools.cache
def _names_flows(module: ModuleType) -> bool:
    names = (getattr(value, "__module__", None) or getattr(value, "__name__", "") for value in vars(module).values())
    return any(str(name).partition(".")[0] in ABOUT_FLOWS for name in names)
