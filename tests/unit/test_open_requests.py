"""What goes wrong around a request leaves it open with a reason, and `resume` finishes it once that is mended."""

import json
import sqlite3
from pathlib import Path

import fake_pipeline
import pytest
from builders import contents
from fake_pipeline import CANARY, FakePipeline
from fake_stages import ACTIONS, UPDATES
from mishaps import assert_damage_is_refused, bad_events

from lmeraser.core.errors import CheckFailedError
from lmeraser.pipeline.locks import read_outs
from lmeraser.serve.quarantine import read_quarantine

PERSON, OTHER = f"{CANARY}-2", f"{CANARY}-3"


def certificates(pipeline: FakePipeline) -> list[Path]:
    return sorted(pipeline.layout.certificates.glob("*.json"))


def finished(pipeline: FakePipeline, *options: str) -> list[str]:
    return [request["state"] for request in pipeline.json("resume", *options)["finished"]]


@pytest.mark.parametrize("stage", ["split", "embed", "cluster", "validate", "tune", "head", "evaluate"])
def test_stage_that_fails_leaves_the_last_model_whole_and_resume_finishes(
    stage: str, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(pipeline.layout.artifacts)

    def trap(*_: object) -> None:
        raise CheckFailedError("the trap")

    with monkeypatch.context() as patch:
        patch.setitem(ACTIONS, stage, trap)
        patch.setitem(UPDATES, stage, trap)
        line = pipeline.refused(1, "forget", "--subject", PERSON)
    assert "stays open at removed" in line
    assert "the trap" in line
    assert contents(pipeline.layout.artifacts) == before
    assert read_quarantine(pipeline.layout) is not None, "the person is left out all the same"
    assert finished(pipeline) == ["certified"]
    assert pipeline.status() == {}


def test_remote_that_is_away_during_the_purge_keeps_the_request_open_and_says_why(pipeline: FakePipeline) -> None:
    away = pipeline.remote.rename(pipeline.remote.with_name("away"))
    line = pipeline.refused(1, "forget", "--subject", PERSON)
    assert "open at verified" in line
    assert "remote disk" in line
    assert certificates(pipeline) == []
    [summary] = pipeline.json("status")["requests"]
    assert (summary["state"], summary["certificate"], summary["attempts"]) == ("verified", None, 1)
    assert "remote disk" in summary["problem"]
    away.rename(pipeline.remote)
    assert finished(pipeline) == ["certified"]
    assert pipeline.json("audit", "--stores")["clean"] is True
    assert len(certificates(pipeline)) == 1


def test_empty_lock_is_refused_or_mended_and_never_believed(pipeline: FakePipeline) -> None:
    whole = pipeline.layout.lock.read_bytes()
    pipeline.layout.lock.write_bytes(b"")
    assert "dvc.lock" in pipeline.refused(2, "plan", "--subject", OTHER)
    pipeline.layout.lock.write_bytes(whole)
    pipeline.submit(PERSON)
    pipeline.layout.lock.write_bytes(b"")
    assert "dvc.lock" in pipeline.refused(2, "resume")
    pipeline.layout.lock.write_bytes(whole)
    assert finished(pipeline) == ["certified"]
    assert pipeline.status() == {}


def test_bad_input_is_one_line_without_values_and_leaves_the_ledger_alone(pipeline: FakePipeline, tmp_path: Path) -> None:
    pipeline.submit(PERSON)
    before = pipeline.json("status")["requests"]
    event = tmp_path / "event.json"
    for message in bad_events(CANARY, letters=10_000, people=20_000):
        event.write_bytes(message)
        pipeline.refused(2, "submit", "--event", str(event))
    assert pipeline.json("status")["requests"] == before


def test_damaged_ledger_is_refused_and_left_as_it_is(pipeline: FakePipeline) -> None:
    pipeline.submit(PERSON)
    assert_damage_is_refused(pipeline.layout.private_state, lambda: pipeline.refused(2, "resume"))
    assert finished(pipeline) == ["certified"]


def test_lost_signing_key_is_told_and_the_chain_goes_on_with_a_signed_break(pipeline: FakePipeline) -> None:
    pipeline.forget(PERSON)
    key = pipeline.layout.private_state / "certificate.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.unlink()
    assert "keys init" in pipeline.refused(2, "forget", "--subject", OTHER)
    pipeline.json("keys", "init", "--replace")
    assert finished(pipeline) == ["certified"]
    pipeline.json("verify", *map(str, certificates(pipeline)), "--head", str(pipeline.layout.certificates / "HEAD"))


def test_lost_or_changed_subject_key_never_certifies_somebody_who_was_not_found(pipeline: FakePipeline) -> None:
    key = pipeline.layout.private_state / "subject.key"
    pipeline.submit(PERSON)
    whole = key.read_bytes()
    key.unlink()
    pipeline.refused(2, "resume")
    assert not key.exists(), "no new key may take its place"
    key.write_bytes(bytes(255 - byte for byte in whole))
    key.chmod(0o600)
    assert "subject key" in pipeline.refused(2, "resume")
    key.write_bytes(whole)
    [summary] = pipeline.json("resume")["finished"]
    assert (summary["state"], summary["records_removed"] > 0) == ("certified", True)


def test_clock_that_moved_back_keeps_no_request_from_its_certificate(pipeline: FakePipeline) -> None:
    moved, future = pipeline.submit(PERSON).request_id, "2099-01-01T00:00:00+00:00"
    with sqlite3.connect(pipeline.layout.private_state / "ledger.db") as ledger:
        ledger.execute("UPDATE requests SET received_at = ?", (future,))
    ledger.close()
    other = pipeline.json("forget", "--subject", OTHER)
    assert other["state"] == pipeline.json("status", moved)["state"] == "certified"
    head = str(pipeline.layout.certificates / "HEAD")
    verification = pipeline.json("verify", *map(str, certificates(pipeline)), "--head", head)
    times = {certificate["request_id"]: certificate["completed_at"] for certificate in verification["certificates"]}
    assert times[moved] == future > times[other["request_id"]]


def test_damaged_quarantine_is_made_again(pipeline: FakePipeline) -> None:
    pipeline.submit(PERSON)
    pipeline.layout.quarantine.write_text("{")
    assert finished(pipeline) == ["certified"]
    assert not pipeline.layout.quarantine.exists()


def test_traces_that_were_found_keep_a_request_open_however_often_it_is_tried(pipeline: FakePipeline) -> None:
    letter = pipeline.root / "letter.txt"
    letter.write_text(f"Dear {PERSON}, we will erase you.")
    assert "traces are left after the purge (workspace: 1)" in pipeline.refused(1, "forget", "--subject", PERSON)
    for _ in range(2):
        assert "traces are left after the purge (workspace: 1)" in pipeline.refused(1, "resume")
    status, output, _ = pipeline.command("audit", "--stores", "--json")
    assert (status, json.loads(output)["clean"]) == (1, False)
    assert [request["state"] for request in pipeline.json("status")["requests"]] == ["verified"]
    assert certificates(pipeline) == []
    letter.unlink()
    assert finished(pipeline) == ["certified"]
    assert not list(pipeline.layout.private_state.glob("*.needles*"))


def test_objects_that_no_version_names_stop_an_erasure_until_somebody_accepts_that_they_stay(pipeline: FakePipeline) -> None:
    theirs = pipeline.remote / "files" / "md5" / "ab" / ("0" * 30)
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_bytes(b"a model of everybody")
    before = contents(pipeline.remote), contents(pipeline.root / ".dvc")
    line = pipeline.refused(3, "forget", "--subject", PERSON)
    assert "remote disk: 1" in line
    assert "--accept-unknown" in line
    assert (contents(pipeline.remote), contents(pipeline.root / ".dvc")) == before
    assert certificates(pipeline) == []
    assert finished(pipeline, "--accept-unknown") == ["certified"]
    assert theirs.exists()
    unknown = {store["store"]: store["unknown"] for store in pipeline.json("audit", "--stores")["stores"]}
    assert (unknown["remote disk"], unknown["cache"]) == (1, 0)


def test_attempts_that_are_used_up_wait_for_a_person(pipeline: FakePipeline) -> None:
    params = pipeline.layout.params
    params.write_text(params.read_text().replace("attempts: 60", "attempts: 2"))
    pipeline.submit(PERSON)
    away = pipeline.remote.rename(pipeline.remote.with_name("away"))
    for state in ("verified", "failed"):
        with pytest.raises(CheckFailedError, match="remote disk"):
            pipeline.sweep()
        assert [request.state for request in pipeline.requests()] == [state]
    away.rename(pipeline.remote)
    assert pipeline.sweep() == [], "a sweep does not try it again"
    assert finished(pipeline) == ["certified"]
    assert read_outs(pipeline.layout.lock)


@pytest.mark.parametrize("name", ["served", "part"])
def test_artifact_that_somebody_changed_before_it_was_signed_is_refused_with_a_way_out(
    name: str, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.submit(PERSON)
    away = pipeline.remote.rename(pipeline.remote.with_name("away"))
    pipeline.refused(1, "resume")
    away.rename(pipeline.remote)
    changed = pipeline.layout.head if name == "served" else pipeline.layout.part("p00")
    changed.write_bytes(b"something else")
    assert "dvc checkout" in pipeline.refused(2, "resume")
    assert certificates(pipeline) == []
    fake_pipeline.dvc_of(pipeline.layout).checkout()
    assert finished(pipeline) == ["certified"]
