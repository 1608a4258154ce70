"""Grace, withdrawal and hold on a real project: what is in effect is not destroyed, and goes on by itself."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from sandbox import Sandbox, refused

from lmeraser.core.layout import Layout
from lmeraser.pipeline.locks import read_outs
from lmeraser.serve.quarantine import read_quarantine

pytestmark = pytest.mark.slow

GRACE = 600.0  # s; far more than it takes to withdraw


@pytest.mark.campaign("in process: unit/test_pause_histories.py")
def test_what_is_withdrawn_is_as_before_and_what_is_released_is_certified(project: Sandbox) -> None:
    layout, (first, second) = Layout(project.root), project.people()[:2]
    rows = project.manifest
    image = str(project.root / "people" / rows.loc[rows["subject"] == first, "path"].iloc[0])
    before = project.contents(private=False), read_outs(layout.lock), project.json("predict", image)
    project.set_params(service={"grace_s": GRACE})
    mine = project.json("forget", "--subject", first)
    assert (mine["state"], mine["certificate"]) == ("quarantined", None)
    assert project.json("predict", image) != before[2], "in effect"
    project.json("withdraw", mine["request_id"])
    project.set_params(service={"grace_s": 0.0})
    text = layout.params.read_bytes()
    assert (read_outs(layout.lock), project.json("predict", image)) == before[1:]
    assert {**project.contents(private=False), "params.yaml": text} == before[0] | {"params.yaml": text}
    until = (datetime.now(UTC) + timedelta(days=9)).date().isoformat()
    project.json("hold", "--subject", second, "--until", until, "--reason", "file 42")
    project.set_params(service={"grace_s": 1.0})
    assert "on hold" in refused(project.lmeraser("forget", "--subject", second), 3)
    [blocked] = [request for request in project.json("status")["requests"] if request["state"] == "blocked"]
    time.sleep(1)
    assert project.json("resume")["finished"] == []
    assert read_outs(layout.lock) == before[1], "nothing of a held person is destroyed"
    assert read_quarantine(layout) is not None
    project.json("release", "--subject", second)
    [done] = project.json("resume")["finished"]
    assert (done["request_id"], done["state"]) == (blocked["request_id"], "certified")
    assert read_quarantine(layout) is None
