"""What goes wrong around a request leaves it open with a reason, and a rerun finishes it with the same bytes."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import preloading
import pytest
from mishaps import assert_damage_is_refused, bad_events
from sandbox import CANARY, Sandbox, refused

from lmeraser.pipeline.locks import read_outs

pytestmark = pytest.mark.slow


def certificates(project: Sandbox) -> list[str]:
    return sorted(path.name for path in (project.root / "certificates").glob("*.json"))


@pytest.mark.campaign("in process: unit/test_open_requests.py, and with real stores test_purge_stores.py")
def test_remote_that_is_down_during_the_purge_keeps_the_request_open_and_says_why(project: Sandbox, tmp_path: Path) -> None:
    disk, away = tmp_path / "disk", tmp_path / "away"
    disk.mkdir()
    project.dvc("remote", "add", "--default", "disk", str(disk))
    project.dvc("push", "--quiet", "--run-cache")
    disk.rename(away)
    request = project.lmeraser("forget", "--subject", project.people()[2])
    line = refused(request, 1)
    assert "open at verified" in line
    assert "remote disk" in line
    assert certificates(project) == []
    [summary] = project.json("status")["requests"]
    assert (summary["state"], summary["certificate"], summary["attempts"]) == ("verified", None, 1)
    assert "remote disk" in summary["problem"]
    away.rename(disk)
    assert project.json("resume")["finished"][0]["state"] == "certified"
    assert project.json("audit", "--stores")["clean"] is True
    assert len(certificates(project)) == 1


def test_two_coordinators_at_once_certify_each_request_once(project: Sandbox) -> None:
    accepted = [project.json("submit", "--subject", person)["request_id"] for person in project.people()[:2]]
    command = [sys.executable, "-m", "flows.cli", "resume", "--json"]
    env = preloading.variables(os.environ)
    both = [
        subprocess.Popen(command, cwd=project.root, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    worked = [request["request_id"] for text in outputs for request in json.loads(text)["finished"]]
    assert sorted(worked) == sorted(accepted)
    assert len(certificates(project)) == 2


@pytest.mark.campaign("in process: unit/test_open_requests.py; real locks that a kill emptied: test_many_slots.py")
@pytest.mark.parametrize("reached", ["quarantined", "removed"])
def test_empty_lock_is_refused_or_mended_and_never_believed(project: Sandbox, tmp_path: Path, reached: str) -> None:
    person = project.people()[5]
    shutil.copytree(project.root, tmp_path / "calm", symlinks=True)
    calm = Sandbox(tmp_path / "calm")
    calm.json("forget", "--subject", person)
    whole = (project.root / "dvc.lock").read_bytes()
    project.json("submit", "--subject", person)
    if reached == "removed":
        trap = project.root / "trap"
        trap.mkdir()
        (trap / "sitecustomize.py").write_text(
            "import sys\nif 'flows.cli' in ' '.join(sys.orig_argv):\n"
            "    import flows.run.build as b, os\n"
            "    def update(layout, *a):\n        layout.lock.write_bytes(b'')\n        os.kill(os.getpid(), 9)\n"
            "    b.update = update\n"
        )
        path = os.pathsep.join((str(trap), str(project.root)))
        assert project.lmeraser("resume", env={"PYTHONPATH": path}).returncode == -9
        shutil.rmtree(trap)
        assert (project.root / "dvc.lock").read_bytes() == b""
    else:
        (project.root / "dvc.lock").write_bytes(b"")
        line = refused(project.lmeraser("resume"), 2)
        assert "dvc.lock" in line
        (project.root / "dvc.lock").write_bytes(whole)
    assert project.json("resume")["finished"][0]["state"] == "certified"
    assert read_outs(project.root / "dvc.lock") == read_outs(calm.root / "dvc.lock")
    assert project.dvc("status").strip().endswith("up to date.")


@pytest.mark.campaign("in process: unit/test_open_requests.py")
def test_bad_input_is_one_line_without_values_and_leaves_the_ledger_alone(project: Sandbox, tmp_path: Path) -> None:
    person = project.people()[0]
    project.json("submit", "--subject", person)
    before = project.json("status")["requests"]
    event = tmp_path / "event.json"
    for message in bad_events(CANARY, letters=100_000, people=1_000_000):
        event.write_bytes(message)
        refused(project.lmeraser("submit", "--event", str(event)), 2)
    assert project.json("status")["requests"] == before
    assert_damage_is_refused(project.root / ".lmeraser", lambda: refused(project.lmeraser("resume"), 2))
    assert project.json("resume")["finished"][0]["state"] == "certified"


@pytest.mark.campaign("in process: unit/test_forgetting.py")
def test_event_is_read_and_what_else_it_holds_is_dropped(project: Sandbox, tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    identity = "7f6d3f5e-1111-4222-8333-444455556666"
    event.write_text(
        json.dumps(
            {
                "subject_request_id": identity,
                "subject_request_type": "erasure",
                "subject_identities": [{"identity_value": project.people()[1], "identity_format": "raw"}],
                "extensions": {"mail": "zufaelliges-geheimnis@example.org"},
            }
        )
    )
    summary = project.json("forget", "--event", str(event))
    assert (summary["request_id"], summary["state"], summary["request_status"]) == (identity, "certified", "completed")
    for path in (project.root / ".lmeraser").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"zufaelliges-geheimnis" not in content
            assert CANARY.encode() not in content, path.name


@pytest.mark.campaign("in process: unit/test_open_requests.py")
def test_lost_signing_key_is_told_and_the_chain_goes_on_with_a_signed_break(project: Sandbox) -> None:
    people = project.people()[:2]
    project.json("forget", "--subject", people[0])
    key = project.root / ".lmeraser" / "certificate.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.unlink()
    line = refused(project.lmeraser("forget", "--subject", people[1]), 2)
    assert "keys init" in line
    project.json("keys", "init", "--replace")
    assert project.json("resume")["finished"][0]["state"] == "certified"
    files = [str(path) for path in sorted((project.root / "certificates").glob("*.json"))]
    project.json("verify", *files, "--head", str(project.root / "certificates" / "HEAD"))


@pytest.mark.campaign("in process: unit/test_open_requests.py")
def test_lost_or_changed_subject_key_never_certifies_somebody_who_was_not_found(project: Sandbox) -> None:
    key = project.root / ".lmeraser" / "subject.key"
    project.json("submit", "--subject", project.people()[0])
    whole = key.read_bytes()
    key.unlink()
    refused(project.lmeraser("resume"), 2)
    assert not key.exists(), "no new key may take its place"
    key.write_bytes(bytes(255 - byte for byte in whole))
    key.chmod(0o600)
    assert "subject key" in refused(project.lmeraser("resume"), 2)
    key.write_bytes(whole)
    summary = project.json("resume")["finished"][0]
    assert (summary["state"], summary["records_removed"] > 0) == ("certified", True)


@pytest.mark.campaign("in process: unit/test_open_requests.py")
def test_clock_that_moved_back_keeps_no_request_from_its_certificate(project: Sandbox) -> None:
    """Found by hand: a certificate that ends before its request began is refused, so nothing of the batch was certified."""
    person, other = project.people()[:2]
    moved = project.json("submit", "--subject", person)["request_id"]
    future = "2099-01-01T00:00:00+00:00"
    with sqlite3.connect(project.root / ".lmeraser" / "ledger.db") as ledger:
        ledger.execute("UPDATE requests SET received_at = ?", (future,))
    ledger.close()
    finished = project.json("forget", "--subject", other)
    assert finished["state"] == "certified"
    assert project.json("status", moved)["state"] == "certified"
    paths = [str(path) for path in sorted((project.root / "certificates").glob("*.json"))]
    verification = project.json("verify", *paths, "--head", str(project.root / "certificates" / "HEAD"))
    times = {certificate["request_id"]: certificate["completed_at"] for certificate in verification["certificates"]}
    assert times[moved] == future
    assert times[finished["request_id"]] < future


@pytest.mark.campaign("in process: unit/test_open_requests.py")
def test_damaged_quarantine_is_made_again(project: Sandbox) -> None:
    project.json("submit", "--subject", project.people()[0])
    pointer = project.root / ".lmeraser" / "quarantine.json"
    pointer.write_text("{")
    assert project.json("resume")["finished"][0]["state"] == "certified"
    assert not pointer.exists()


def test_record_of_readers_that_a_killed_dvc_left_empty_stops_nothing(project: Sandbox) -> None:
    """Found by the campaign: DVC writes this file in place, and refused every command from then on."""
    (project.root / ".dvc" / "tmp" / "rwlock").write_bytes(b"")
    assert project.json("forget", "--subject", project.people()[0])["state"] == "certified"
