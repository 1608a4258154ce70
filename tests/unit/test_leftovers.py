"""Folders that a killed audit left: told from a running one by its lock, not by its process number."""

import fcntl
import json
import os
from pathlib import Path

import pytest
from fake_pipeline import CANARY, FakePipeline

from flows.purge import leftovers
from lmeraser.core.files import DRAFT
from lmeraser.core.layout import Layout
from lmeraser.erase.states import CERTIFIED


def test_a_killed_audit_s_copy_is_left_over_though_its_number_lives_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "audits", lambda: sorted(tmp_path.glob("audit-*")))
    layout = Layout(tmp_path)
    for name in ("audit-runs", "audit-killed", "audit-of-another"):
        (tmp_path / name).mkdir()
    leftovers.mark_audit(tmp_path / "audit-runs", layout)
    for name, root in (("audit-killed", tmp_path), ("audit-of-another", tmp_path / "x")):
        (tmp_path / name / leftovers.OWNER).write_text(json.dumps({"pid": os.getpid(), "root": str(root)}))
    assert leftovers.abandoned_audits(layout) == [tmp_path / "audit-killed"]
    fcntl.flock(leftovers.MARKS.pop(), fcntl.LOCK_UN)
    assert leftovers.abandoned_audits(layout) == [tmp_path / "audit-killed", tmp_path / "audit-runs"]


def test_metrics_that_a_killed_evaluate_had_not_finished_go_with_those_of_their_state(pipeline: FakePipeline) -> None:
    """Found here: the scan knew them by the digest of what goes, nothing deleted them, and the request stayed open."""
    metrics = pipeline.layout.metrics
    draft = metrics / f"{DRAFT}killed"
    draft.write_bytes((metrics / "metrics.json").read_bytes())
    pipeline.forget(f"{CANARY}-1")
    assert [request.state for request in pipeline.requests()] == [CERTIFIED]
    assert not draft.exists()
