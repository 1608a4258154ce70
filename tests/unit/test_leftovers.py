"""Folders that a killed audit left: told from a running one by its lock, not by its process number."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from flows.purge import leftovers
from lmeraser.core.layout import Layout


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
