"""A bounded sample: see kinds.py for the whole of it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from kinds import KINDS, kinds

from bench.lab.sources import shared_data

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("preloaded")]


@pytest.mark.campaign("real images, a build twice and a rebuild: ten minutes")
@pytest.mark.timeout(7200)
def test_requests_of_every_kind_about_real_people_leave_a_project_of_the_final_records_from_the_first_day() -> None:
    try:
        shared_data()
    except SystemExit as missing:
        pytest.skip(str(missing))
    report = kinds(each=3, seed=1)
    assert report["problems"] == []
    assert all(report["requests"][kind] >= 3 for kind in KINDS), report
    assert report["kills"] >= 2
