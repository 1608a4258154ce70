"""Holds: what is held is in effect and not destroyed, and what is released is never forgotten."""

import sqlite3

import pytest
from builders import Row, contents, refused, write_source
from clocks import DAY, Clock
from fake_pipeline import CANARY, FakePipeline, everybody
from histories import is_served, served_ids, state_of
from kills import Killed, killing

from flows.project import workspace
from flows.requests import ground, intake
from flows.service.sweep import waits
from lmeraser.core.errors import BlockedError
from lmeraser.erase.ledger import Ledger
from lmeraser.erase.states import BLOCKED, CERTIFIED, REJECTED
from lmeraser.serve.quarantine import read_quarantine

PERSON, OTHER = f"{CANARY}-2", f"{CANARY}-3"
REASON = "file 42"


def held(pipeline: FakePipeline, clock: Clock, days: int = 30, person: str = PERSON) -> str:
    identity = pipeline.submit(person).request_id
    pipeline.json("hold", identity, "--until", clock.day(days), "--reason", REASON)
    return identity


def test_held_request_is_in_effect_and_nothing_of_it_is_destroyed(pipeline: FakePipeline, clock: Clock) -> None:
    before = contents(pipeline.layout.artifacts)
    identity = held(pipeline, clock)
    assert pipeline.resume() == pipeline.sweep() == []
    assert (state_of(pipeline, identity), pipeline.request(identity).blocked_by) == (BLOCKED, "hold")
    assert contents(pipeline.layout.artifacts) == before
    assert not is_served(pipeline, PERSON)
    assert not waits(pipeline.request(identity), clock.now)
    assert "on hold" in pipeline.refused(3, "forget", "--request-id", identity)
    assert "on hold" in pipeline.refused(3, "submit", "--request-id", identity, "--subject", PERSON, "--include-public")


def test_a_hold_whose_date_is_past_is_released_by_whoever_sweeps_next(pipeline: FakePipeline, clock: Clock) -> None:
    identity = held(pipeline, clock, days=3)
    clock.now += 3 * DAY - 1
    assert pipeline.sweep() == []
    clock.now += DAY + 1
    assert [request.request_id for request in pipeline.sweep()] == [identity]
    assert state_of(pipeline, identity) == CERTIFIED


def test_person_on_hold_before_anybody_asked_blocks_their_request_and_no_other(pipeline: FakePipeline, clock: Clock) -> None:
    before = contents(pipeline.layout.artifacts)
    answer = pipeline.json("hold", "--subject", PERSON, "--until", clock.day(9), "--reason", REASON)
    assert answer["requests"] == []
    assert is_served(pipeline, PERSON), "nobody asked yet"
    line = pipeline.refused(3, "forget", "--subject", PERSON)
    assert f"until {clock.day(9)}" in line
    [request] = pipeline.requests()
    assert contents(pipeline.layout.artifacts) == before
    assert not is_served(pipeline, PERSON)
    assert "--subject S" in pipeline.refused(2, "release", request.request_id)
    assert pipeline.forget(OTHER).state == CERTIFIED
    assert (state_of(pipeline, request.request_id), is_served(pipeline, PERSON)) == (BLOCKED, False)
    assert pipeline.json("release", "--subject", PERSON)["requests"][0]["state"] == "quarantined"
    assert [request.state for request in pipeline.resume()] == [CERTIFIED]


def test_of_two_holds_the_longer_one_counts_and_each_is_released_by_its_own_way(pipeline: FakePipeline, clock: Clock) -> None:
    identity = held(pipeline, clock, days=5)
    pipeline.json("hold", "--subject", PERSON, "--until", clock.day(9), "--reason", REASON)
    assert pipeline.json("status", identity)["held_until"] == clock.day(9)
    assert pipeline.json("release", identity)["requests"] == []
    assert state_of(pipeline, identity) == BLOCKED
    assert pipeline.json("release", "--subject", PERSON)["requests"] != []
    assert state_of(pipeline, identity) == "quarantined"


def test_held_request_may_be_withdrawn_in_its_grace_and_cancelled_always(patient: FakePipeline, clock: Clock) -> None:
    mine, theirs = held(patient, clock), held(patient, clock, person=OTHER)
    patient.json("withdraw", mine)
    clock.now += 2 * DAY
    patient.refused(2, "withdraw", theirs)
    patient.json("cancel", theirs)
    assert [request.state for request in patient.requests()] == [REJECTED, REJECTED]
    assert is_served(patient, PERSON)
    assert is_served(patient, OTHER)
    clock.now += 60 * DAY
    assert patient.sweep() == []


def test_hold_comes_too_late_for_who_is_erased_or_being_erased(pipeline: FakePipeline, clock: Clock) -> None:
    until = ("--until", clock.day(9), "--reason", REASON)
    identity = pipeline.submit(PERSON).request_id
    with killing(pipeline.root.parent, place=".*/dvc.lock"):
        pipeline.sweep()
    assert state_of(pipeline, identity) == "removed"
    assert "cannot be held" in pipeline.refused(2, "hold", identity, *until)
    assert "already erased" in pipeline.refused(2, "hold", "--subject", PERSON, *until)
    pipeline.resume()
    assert "erased" in pipeline.refused(2, "hold", identity, *until)
    assert "already erased" in pipeline.refused(2, "hold", "--subject", PERSON, *until)
    assert "unknown" in pipeline.refused(2, "hold", "--subject", "nobody", *until)
    with pipeline.process() as project:
        assert project.ledger.people_on_hold() == set()


def test_hold_dissolves_a_batch_that_was_formed_and_not_begun_and_waits_for_nobody_who_is_at_it(
    pipeline: FakePipeline, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise Killed

    mine, theirs = (pipeline.submit(person).request_id for person in (PERSON, OTHER))
    with monkeypatch.context() as patch, killing(pipeline.root.parent):
        patch.setattr(ground, "keep_out", die)
        pipeline.sweep()
    assert {(request.state, request.batch_id is None) for request in pipeline.requests()} == {("quarantined", False)}
    until = ("--until", clock.day(9), "--reason", REASON)
    with pipeline.process() as project, workspace(project):
        assert "being carried out" in pipeline.refused(2, "hold", mine, *until)
    pipeline.json("hold", mine, *until)
    assert [request.request_id for request in pipeline.sweep()] == [theirs]
    assert (state_of(pipeline, mine), state_of(pipeline, theirs)) == (BLOCKED, CERTIFIED)


def test_hold_that_comes_while_a_batch_is_formed_keeps_its_request_out_and_the_others_go_on(
    pipeline: FakePipeline, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = (pipeline.submit(person).request_id for person in (PERSON, OTHER))
    original = Ledger.open_batch
    calls: list[int] = []

    def late(self: Ledger, *given: object) -> object:
        if not calls:
            calls.append(1)
            self.hold(clock.now + DAY, REASON, request_id=mine)
        return original(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Ledger, "open_batch", late)
    assert {request.request_id: request.state for request in pipeline.sweep()} == {mine: BLOCKED, theirs: CERTIFIED}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--until", "soon", "--reason", REASON], "YYYY-MM-DD"),
        (["--until", "2001-01-01", "--reason", REASON], "from today"),
        (["--until", "9999-01-01", "--reason", REASON], "ten years"),
        (["--until", "DAY", "--reason", " "], "--reason"),
        (["--until", "DAY", "--reason", "x" * 501], "--reason"),
        (["--until", "DAY", "--reason", f"the case of {PERSON.upper()}"], "names a person"),
    ],
)
def test_hold_that_says_no_end_or_no_reason_or_a_name_is_refused(
    arguments: list[str], told: str, pipeline: FakePipeline, clock: Clock
) -> None:
    identity = pipeline.submit(PERSON).request_id
    given = [clock.day(1) if word == "DAY" else word for word in arguments]
    status, output, complaint = pipeline.command("hold", identity, *given)
    assert (status, output) == (2, "")
    assert told in complaint
    assert PERSON not in complaint
    assert state_of(pipeline, identity) == "quarantined"


def test_hold_and_release_take_a_request_or_a_person_and_not_both(pipeline: FakePipeline, clock: Clock) -> None:
    identity = pipeline.submit(PERSON).request_id
    until = ("--until", clock.day(1), "--reason", REASON)
    for given in ([], [identity, "--subject", PERSON]):
        assert "one of the two" in pipeline.refused(2, "hold", *given, *until)
        assert "one of the two" in pipeline.refused(2, "release", *given)
    assert "no hold" in pipeline.refused(2, "release", identity)
    assert "no hold" in pipeline.refused(2, "release", "--subject", PERSON)


def test_reason_is_told_by_status_alone_and_goes_with_the_people(pipeline: FakePipeline, clock: Clock) -> None:
    secret = "KANARIE the neighbour complained"
    identity = pipeline.submit(PERSON).request_id
    pipeline.json("hold", identity, "--until", clock.day(1), "--reason", secret)
    pipeline.json("extend", identity, "--days", "5", "--reason", secret)
    answer = pipeline.json("status", identity)
    assert (answer["hold_reason"], answer["extension_reason"]) == (secret, secret)
    with pipeline.process() as project:
        request = project.ledger.get(identity)
        assert secret not in repr([*project.ledger.events(), request])
        assert secret not in refused(BlockedError, lambda: intake.refuse(request))
    assert secret not in pipeline.command("status")[1]
    pipeline.json("release", identity)
    pipeline.sweep()
    assert state_of(pipeline, identity) == CERTIFIED
    assert all(secret.encode() not in content for content in contents(pipeline.root.parent).values())


def test_reason_that_names_the_person_by_another_spelling_keeps_no_certificate_from_being_signed(
    pipeline: FakePipeline, clock: Clock
) -> None:
    """The scan reads the ledger's file: what was written there about the person must be gone before it looks."""
    identity = pipeline.submit(PERSON).request_id
    with pipeline.process() as project:
        project.ledger.hold(clock.now + DAY, PERSON, request_id=identity)
    pipeline.json("release", identity)
    assert [request.state for request in pipeline.sweep()] == [CERTIFIED]


def test_who_joins_during_a_hold_is_served_after_the_next_build_and_can_be_erased(pipeline: FakePipeline, clock: Clock) -> None:
    newcomer = f"{CANARY}-9"
    identity = held(pipeline, clock)
    before = served_ids(pipeline)
    write_source(pipeline.root / "people", [*everybody(), Row(newcomer, "one", seed=99)])
    pipeline.repro()
    assert pipeline.sweep() == []
    assert served_ids(pipeline) > before
    assert not is_served(pipeline, PERSON)
    assert pipeline.forget(newcomer).state == CERTIFIED
    assert (state_of(pipeline, identity), served_ids(pipeline)) == (BLOCKED, before)


def test_what_is_retrained_during_a_hold_is_served_without_the_held_person(pipeline: FakePipeline, clock: Clock) -> None:
    identity = held(pipeline, clock)
    before = read_quarantine(pipeline.layout)
    assert pipeline.forget(OTHER).state == CERTIFIED
    renewed = read_quarantine(pipeline.layout)
    assert renewed is not None
    assert renewed != before
    assert not is_served(pipeline, PERSON)
    assert not is_served(pipeline, OTHER)
    pipeline.json("release", identity)
    assert [request.state for request in pipeline.sweep()] == [CERTIFIED]


def test_ledger_of_an_older_version_takes_holds_and_grace(pipeline: FakePipeline, clock: Clock) -> None:
    with sqlite3.connect(pipeline.layout.ledger) as old:
        old.execute("DROP TABLE holds")
        for column in ("ready_at", "blocked_by"):
            old.execute(f"ALTER TABLE requests DROP COLUMN {column}")
    old.close()
    identity = held(pipeline, clock)
    pipeline.json("release", identity)
    assert [request.state for request in pipeline.sweep()] == [CERTIFIED]
