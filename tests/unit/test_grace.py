"""Grace and extension: what may be withdrawn is in effect and not destroyed; the due date moves once, with a reason."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from builders import contents
from clocks import DAY, Clock
from fake_pipeline import CANARY, FakePipeline
from histories import is_served, state_of
from kills import killing

from flows.requests import pauses
from flows.service.sweep import waits
from lmeraser.erase.states import CERTIFIED, REJECTED
from lmeraser.serve.quarantine import read_quarantine

PERSON, OTHER = f"{CANARY}-2", f"{CANARY}-3"
REASON = "file 42"


def test_request_in_grace_is_in_effect_and_is_carried_out_only_after_it(patient: FakePipeline, clock: Clock) -> None:
    before = contents(patient.layout.artifacts)
    answer = patient.json("forget", "--subject", PERSON)
    identity = answer["request_id"]
    assert (answer["state"], answer["certificate"]) == ("quarantined", None)
    assert answer["waits_until"] == datetime.fromtimestamp(clock.now + DAY, UTC).isoformat(timespec="seconds")
    assert not is_served(patient, PERSON)
    for _ in range(2):
        clock.now += DAY / 2 - 1
        assert patient.resume() == patient.sweep() == []
        assert contents(patient.layout.artifacts) == before, "nothing is destroyed, or retrained"
        assert not waits(patient.request(identity), clock.now)
    clock.now += 3
    assert waits(patient.request(identity), clock.now)
    assert [request.state for request in patient.sweep()] == [CERTIFIED]


def test_withdrawn_request_leaves_the_very_bytes_and_the_very_model_of_before(patient: FakePipeline, clock: Clock) -> None:
    before = contents(patient.layout.artifacts), patient.layout.lock.read_bytes(), contents(patient.root / "metrics")
    identity = patient.json("submit", "--subject", PERSON)["request_id"]
    assert read_quarantine(patient.layout) is not None
    clock.now += DAY - 1
    answer = patient.json("withdraw", identity)
    assert (answer["state"], answer["reason"], answer["request_status"]) == (REJECTED, "withdrawn", "cancelled")
    assert before == (contents(patient.layout.artifacts), patient.layout.lock.read_bytes(), contents(patient.root / "metrics"))
    assert read_quarantine(patient.layout) is None
    assert not patient.layout.quarantine_copies.exists()
    clock.now += 10 * DAY
    assert patient.resume() == patient.sweep() == []
    assert patient.forget(PERSON).state == "quarantined", "they may ask again, with another id"


def test_withdrawal_of_one_leaves_the_others_out(patient: FakePipeline) -> None:
    mine, theirs = (patient.submit(person).request_id for person in (PERSON, OTHER))
    patient.json("withdraw", mine)
    assert (is_served(patient, PERSON), is_served(patient, OTHER)) == (True, False)
    assert state_of(patient, theirs) == "quarantined"


def test_withdrawal_after_the_grace_is_refused_in_one_line(patient: FakePipeline, clock: Clock) -> None:
    identity = patient.submit(PERSON).request_id
    clock.now += DAY
    assert "ended at" in patient.refused(2, "withdraw", identity)
    assert state_of(patient, identity) == "quarantined"
    patient.sweep()
    assert "certified" in patient.refused(2, "withdraw", identity)
    assert "unknown here" in patient.refused(2, "withdraw", str(uuid.uuid4()))


def test_without_grace_nothing_waits_and_nothing_that_is_in_effect_can_be_withdrawn(pipeline: FakePipeline) -> None:
    identity = pipeline.submit(PERSON).request_id
    assert "grace_s" in pipeline.refused(2, "withdraw", identity)
    assert [request.state for request in pipeline.sweep()] == [CERTIFIED]


def test_grace_is_that_of_the_moment_of_acceptance_whatever_params_say_later(patient: FakePipeline, clock: Clock) -> None:
    identity = patient.submit(PERSON).request_id
    text = patient.layout.params.read_text(encoding="utf-8")
    patient.layout.params.write_text(text.replace("grace_s: 86400.0", "grace_s: 0.0"), encoding="utf-8")
    assert patient.sweep() == []
    assert [request.state for request in (patient.forget(OTHER),)] == [CERTIFIED], "a later one need not wait for it"
    assert not is_served(patient, PERSON)
    patient.json("withdraw", identity)
    assert is_served(patient, PERSON)


@pytest.mark.parametrize("place", ["os.remove .*/quarantine.json", "commit of the ledger"])
def test_withdrawal_that_was_killed_is_whole_or_nothing_after_the_next_resume(
    place: str, patient: FakePipeline, clock: Clock
) -> None:
    identity = patient.submit(PERSON).request_id
    with killing(patient.root.parent, place=place) as kill, patient.process() as project:
        pauses.withdraw(project, identity)
    assert kill.dead
    patient.resume()
    withdrawn = state_of(patient, identity) == REJECTED
    assert withdrawn == is_served(patient, PERSON) == (place != "commit of the ledger")


# Extension


def test_extension_moves_the_due_date_once_and_lateness_follows(pipeline: FakePipeline, clock: Clock) -> None:
    identity = pipeline.submit(PERSON).request_id
    due = datetime.fromisoformat(pipeline.request(identity).due_at)
    for days in ("0", "61", "-3"):
        assert "1 to 60" in pipeline.refused(2, "extend", identity, f"--days={days}", "--reason", REASON)
    answer = pipeline.json("extend", identity, "--days", "60", "--reason", REASON)
    later = datetime.fromisoformat(answer["due_at"])
    assert later - due == timedelta(days=60)
    request = pipeline.request(identity)
    assert (request.late(later), request.late(later + timedelta(seconds=1))) == (False, True)
    assert "extended already" in pipeline.refused(2, "extend", identity, "--days", "1", "--reason", REASON)
    with pipeline.process() as project:
        [event] = [event for event in project.ledger.events(identity) if event.kind == "extended"]
    assert event.data == {"days": 60, "from": due.isoformat(), "to": later.isoformat()}


def test_extension_is_refused_once_the_request_is_late_or_finished(pipeline: FakePipeline, clock: Clock) -> None:
    late, done = pipeline.submit(PERSON).request_id, pipeline.submit(OTHER).request_id
    pipeline.json("cancel", done)
    assert "rejected" in pipeline.refused(2, "extend", done, "--days", "3", "--reason", REASON)
    clock.now += 31 * DAY
    assert "was due" in pipeline.refused(2, "extend", late, "--days", "3", "--reason", REASON)
