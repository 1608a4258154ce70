"""Two builds under different instruction sets give equal bytes, or environments that are told apart and refused in one model."""

import re
from collections.abc import Iterator
from pathlib import Path

import preloading
import pytest
from sandbox import Sandbox

from lmeraser.clusters.files import load_sizes
from lmeraser.core.environment import differing
from lmeraser.core.errors import VerificationError
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params
from lmeraser.pipeline.mixing import artifacts_environment, environments_of, noting_stages, require_one_environment

pytestmark = pytest.mark.slow
PIN = {"ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "Prescott"}


@pytest.fixture
def pinned(tmp_path: Path) -> Iterator[None]:
    """The whole pipeline runs under the pins: from a process that was imported under them."""
    (tmp_path / "pinned").mkdir()
    with preloading.server(tmp_path / "pinned", PIN):
        yield


@pytest.mark.campaign("a minute; in process: unit/test_mixing.py")
@pytest.mark.usefixtures("pinned")
def test_artifacts_of_another_instruction_set_are_refused_beside_the_others_and_the_named_command_mends_it(
    built: Sandbox, project: Sandbox
) -> None:
    before, layout = Layout(built.root), Layout(project.root)
    params = load_params(layout.params)
    slot = load_sizes(layout.clusters)[0].slot
    retuned = project.python("-m", "dvc", "repro", "--force", "--single-item", f"tune@{slot}", env=PIN)
    assert retuned.returncode == 0, retuned.stderr
    if before.tuned(slot).read_bytes() == layout.tuned(slot).read_bytes():
        pytest.skip("this processor has no smaller instruction set to pin")
    with pytest.raises(VerificationError, match=f"2 environments: tune@{slot} differ") as refusal:
        require_one_environment(layout, params)

    command = re.search("`dvc (.+?)`", str(refusal.value))
    assert command
    mended = project.python("-m", "dvc", *command[1].split(), env=PIN)
    assert mended.returncode == 0, mended.stderr
    require_one_environment(layout, params)
    assert differing(artifacts_environment(before, params), artifacts_environment(layout, params))
    old, new = environments_of(before, params), environments_of(layout, params)
    for stage, path in noting_stages(layout, params).items():
        if path.read_bytes() != noting_stages(before, params)[stage].read_bytes():
            assert differing(old[stage], new[stage]), f"{stage}: other bytes under one environment"
