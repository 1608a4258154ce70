"""DVC itself says what a change of one file makes stale (tests/unit/test_staleness.py tells it from dvc.yaml alone)."""

import json
import re
from pathlib import Path

import pytest
from sandbox import Sandbox

pytestmark = pytest.mark.slow

SLOTS = {"tune@c00", "tune@c01", "tune@c02", "tune@c03"}


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n# a change that moves no byte of an artifact\n")


def stale(project: Sandbox) -> set[str]:
    return set(json.loads(project.dvc("status", "--json")))


def test_colour_help_scan_and_ledger_make_no_stage_stale_and_the_optimiser_tuning_alone(project: Sandbox) -> None:
    assert stale(project) == set()
    changed = [*(project.root / "flows").rglob("*.py"), *(project.root / "lmeraser" / "prove").glob("*.py")]
    assert len(changed) > 40
    changed += [project.root / "lmeraser" / name for name in ("serve/picture.py", "erase/ledger.py")]
    for path in changed:
        change(path)
    assert stale(project) == set()

    change(project.root / "lmeraser" / "learn" / "tuning.py")
    assert stale(project) == {"recipe"}
    outs = {name: stage["outs"] for name, stage in project.lock().items()}
    ran = set(re.findall(r"Running stage '([^']+)'", project.dvc("repro")))
    assert ran == {"recipe"} | SLOTS  # and nothing after them, for a comment moves no tuned byte
    assert stale(project) == set()
    again = {name: stage["outs"] for name, stage in project.lock().items()}
    assert {name for name, made in again.items() if made != outs[name]} == {"recipe"}
