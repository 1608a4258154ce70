"""What a person is told of a stage that failed: its own line, or, where it could leave none, what ended it."""

import signal
import sys
from pathlib import Path

import pytest
from builders import refused

from flows import processes
from flows.dvc.command import finish
from lmeraser.core.errors import StepFailedError
from lmeraser.core.layout import Layout


def told(layout: Layout, code: str) -> str:
    layout.root.mkdir(exist_ok=True)
    started = processes.start([sys.executable, "-c", code], layout)
    return refused(StepFailedError, lambda: finish([started], layout, "a stage"))


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGILL"])
def test_a_stage_that_a_signal_ended_is_told_by_it(name: str, tmp_path: Path) -> None:
    """It had no time to say anything: `its output above` would send people looking for what is not there."""
    line = told(Layout(tmp_path / "project"), f"import os; os.kill(os.getpid(), {int(signal.Signals[name])})")
    assert f"was ended by {name}" in line
    assert "above" not in line


def test_a_stage_that_said_why_is_told_by_its_output(tmp_path: Path) -> None:
    assert "its output above says why" in told(Layout(tmp_path / "project"), "raise SystemExit(1)")
