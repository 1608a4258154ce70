"""What people who wait are told: how much is done and what is left, and nothing before there is anything to reckon with."""

import time

import pytest

from lmeraser.core import progress
from lmeraser.core.progress import pace, track


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seconds pass whenever the time is asked."""
    seconds = iter(range(0, 10_000, 3))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(seconds)))


def test_time_left_is_told_every_few_seconds(clock: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(pace(range(6), 6, "slots", "stage")) == list(range(6))
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["slots: 1 of 6 stages done, about 00:30 left", "slots: 3 of 6 stages done, about 00:12 left",
                     "slots: 5 of 6 stages done, about 00:03 left"]  # fmt: skip


def test_what_is_quick_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(pace(range(100), 100, "slots", "stage")) == list(range(100))
    assert list(track(range(100), 100, "split", "image")) == list(range(100))
    assert capsys.readouterr().err == ""


def test_elsewhere_than_on_a_terminal_a_bar_is_lines(clock: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert progress.LINE_EVERY_S == 5.0
    list(track(range(6), 6, "split", "image"))
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("split: ") and "image" in line for line in lines)
