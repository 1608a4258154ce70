"""The coordinator takes every step of the way once, in order, and stores what a step found before it says that it was taken."""

import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from builders import ROOT, example_plan, refused

from flows.project import Project
from flows.requests.coordinator import AFTERWARDS, STEPS, WAITING, Runner, Turn, attempt, take
from flows.requests.work import Done, Work
from lmeraser.core.errors import StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.erase.batches import BatchRecord
from lmeraser.erase.ledger import ClaimLostError
from lmeraser.erase.states import WAY


@contextmanager
def work() -> Iterator[tuple[Turn, Work]]:
    """A batch of one request that is in effect."""
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Layout(Path(folder)))
        shutil.copyfile(ROOT / "params.yaml", project.layout.params)
        identity = str(uuid.uuid4())
        project.ledger.receive(identity, ["a" * 64], False, 30)
        for state in ("validated", "quarantined"):
            project.ledger.move([identity], state)
        claim = project.ledger.claim("me", 60, WAITING)
        batch = project.ledger.open_batch(claim, [identity], BatchRecord(example_plan(), {}))
        yield Turn(project, claim, threading.Event(), Runner(), False), Work(project, claim, batch, (identity,))
        project.ledger.close()


def succeeds(given: Work) -> Done:
    return Done(replace(given.batch, source="found"), {"part": 2.0})


def test_table_of_steps_is_the_way_from_removed_on() -> None:
    states = [state for state, _ in STEPS]
    assert states == list(WAY[WAY.index("removed") :])
    assert AFTERWARDS.keys() <= set(states)
    assert WAY[WAY.index("quarantined") : -1] == WAITING


def test_what_a_step_found_is_stored_and_a_step_that_was_taken_is_not_taken_again() -> None:
    with work() as (turn, given):
        batch = take(turn, given, "removed", succeeds)
        assert turn.project.ledger.get_batch(batch.batch_id) == batch == replace(given.batch, source="found")
        (request,) = given.requests
        assert request.state == "removed"
        assert request.timings["removed: part"] == 2.0
        assert take(turn, replace(given, batch=batch), "removed", lambda _: pytest.fail("taken twice")) == batch


def test_step_that_fails_stores_only_what_it_kept_on_purpose() -> None:
    def fails(given: Work) -> Done:
        given.keep(replace(given.batch, source_rows=3))
        raise StepFailedError("made to fail")

    with work() as (turn, given):
        with pytest.raises(StepFailedError):
            take(turn, given, "removed", fails)
        stored = turn.project.ledger.get_batch(given.batch.batch_id)
        assert stored == replace(given.batch, source_rows=3)
        assert given.requests[0].state == "quarantined"


def test_coordinator_that_lost_its_claim_takes_no_step_and_stores_nothing() -> None:
    with work() as (turn, given):
        turn.lost.set()
        with pytest.raises(ClaimLostError):
            take(turn, given, "removed", lambda _: pytest.fail("taken without a claim"))
        turn.lost.clear()
        turn.project.ledger.release(turn.claim)
        turn.project.ledger.claim("other", 60, WAITING)
        with pytest.raises(ClaimLostError):
            take(turn, given, "removed", succeeds)
        assert turn.project.ledger.get_batch(given.batch.batch_id) == given.batch


@pytest.mark.parametrize("reason", ["made to fail", "run `dvc repro`, then `lmeraser resume`"])
def test_refusal_says_once_that_resume_goes_on(reason: str) -> None:
    with work() as (turn, given):

        def fail() -> None:
            with attempt(turn.project, turn.claim, given.ids):
                raise StepFailedError(reason)

        line = refused(StepFailedError, fail)
        assert line.startswith(f"request {given.ids[0]} stays open at quarantined: {reason}")
        assert line.count("`lmeraser resume`") == 1
        assert given.requests[0].problem == reason, "the ledger keeps the reason alone"
