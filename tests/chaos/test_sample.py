"""A bounded sample of the campaign: see campaign.py for the whole of it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from campaign import campaign

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("preloaded")]


def test_kills_lose_no_request_certify_none_early_and_leave_the_same_bytes() -> None:
    report = campaign(kills=3, service=0, seed=1)
    assert report["kills"] >= 3
    assert report["problems"] == []


@pytest.mark.campaign("forty kills and six of a real service, in several episodes: twenty minutes")
@pytest.mark.timeout(7200)
def test_many_kills_of_commands_and_of_the_service_lose_nothing_either() -> None:
    report = campaign(kills=40, service=6, seed=2)
    assert report["kills"] >= 46
    assert report["problems"] == []
