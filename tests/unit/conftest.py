"""One tiny trained network for all tests that need one, and one fake project."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import Lab, make_lab
from fake_pipeline import FakePipeline, fakes


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return make_lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def fake_template(tmp_path_factory: pytest.TempPathFactory) -> FakePipeline:
    """Never change it, take `pipeline`."""
    folder = tmp_path_factory.mktemp("fake")
    with fakes(folder):
        return FakePipeline.build(folder / "built")


@pytest.fixture
def pipeline(fake_template: FakePipeline, tmp_path: Path) -> Iterator[FakePipeline]:
    """A fake project with a remote, to do with as a test likes; and the seam that lets the product run on it."""
    (tmp_path / "temporary").mkdir()
    with fakes(tmp_path / "temporary"):
        yield fake_template.copy(tmp_path / "fake")
