"""A bounded sample: see interruptions.py for the whole of it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from interruptions import interruptions

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("preloaded")]


@pytest.mark.campaign("three minutes; in process: unit/test_ground.py and unit/test_open_requests.py")
def test_certificates_are_true_or_refused_with_a_way_out_whatever_git_does_in_between() -> None:
    report = interruptions(0, 1, [("verified", "reset")])
    assert report["problems"] == []
    assert report["times"] == 1


@pytest.mark.campaign("every state once more, with drawn moves, and a rebuild after each: ten minutes")
@pytest.mark.timeout(3600)
def test_certificates_are_true_or_refused_after_moves_at_every_state() -> None:
    report = interruptions(10, 2)
    assert report["problems"] == []
