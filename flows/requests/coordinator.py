"""Carry requests from acceptance to certificate. The ledger says what is open; a claim with a lease says who works on it.

A try that fails leaves its requests open at the step that they reached, with the reason; `lmeraser resume`, or the sweep, goes
on from there. Requests that wait together are carried out together: what several of them touch is retrained once.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from flows.dvc import lock_backups as kept_locks
from flows.project import Project
from flows.requests import ground, intake, steps
from flows.requests.certify import certify
from flows.requests.quarantine import mend
from flows.run.build import Tuner
from lmeraser.core.errors import LmeraserError, StepFailedError
from lmeraser.core.progress import say
from lmeraser.core.redaction import storable
from lmeraser.erase.ledger import Claim, ClaimLostError
from lmeraser.erase.requests import Batch, Request
from lmeraser.erase.states import reached

Seconds = dict[str, float]
WORK = ("quarantined", "removed", "retrained", "verified", "purged")  # states that a coordinator moves on


class Runner:
    """How steps are run and shown. This one runs them here and shows nothing; Prefect's is in `flows/service/forget.py`."""

    def run(self, state: str, act: Callable[[], Seconds | None]) -> Seconds | None:
        """Take a step."""
        return act()

    def tune(self, project: Project, batch: Batch) -> Tuner | None:
        """Who tunes the clusters of a batch; None: this machine's own processes."""
        return None

    def planned(self, batch: Batch, ids: list[str]) -> None:
        """A batch was formed."""

    def reached(self, state: str, ids: list[str]) -> None:
        """Requests reached a state."""


def owner() -> str:
    """This process, as claims name it: a claim of a process of this machine that is gone is void."""
    return f"{socket.gethostname()}:{os.getpid()}"


@contextmanager
def renewing(project: Project, claim: Claim) -> Iterator[threading.Event]:
    """Renew a claim in the background; the event is set if somebody else took it over."""
    lost, done = threading.Event(), threading.Event()

    def renew() -> None:
        while not done.wait(claim.lease_s / 3):
            try:
                project.ledger.renew(claim)
            except ClaimLostError:
                lost.set()
                return
            except LmeraserError as error:  # the ledger is away for a moment: the lease may outlast it
                say(f"the claim could not be renewed: {error}")

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        done.set()
        thread.join()


@dataclass
class Work:
    """One batch in the hands of this process."""

    project: Project
    claim: Claim
    batch: Batch
    ids: list[str]
    lost: threading.Event
    runner: Runner
    by_person: bool = False

    @property
    def requests(self) -> list[Request]:
        return [self.project.ledger.get(one) for one in self.ids]

    def step(self, state: str, act: Callable[[], Seconds | None]) -> None:
        """Take a step unless it was taken, time it, and store that it was taken."""
        waiting = [one.request_id for one in self.requests if not reached(one.reached, state)]
        if not waiting:
            return
        if self.lost.is_set():
            raise ClaimLostError("another coordinator took these requests over; it finishes them")
        start = time.monotonic()
        parts = self.runner.run(state, act) or {}
        took = time.monotonic() - start
        ledger = self.project.ledger
        ledger.add_time(waiting, state, took, self.claim)
        for name, seconds in parts.items():
            ledger.add_time(waiting, f"{state}: {name}", seconds, self.claim)
        ledger.move(waiting, state, self.claim)
        self.runner.reached(state, waiting)


def carry_out(work: Work) -> None:
    """Every step of a batch, in order, from where the working tree shows that it is."""
    project, batch = work.project, work.batch
    ground.realign(project, batch, work.requests, work.claim, work.by_person)
    work.step("removed", lambda: steps.remove(project, work.requests))

    def retrain() -> Seconds:
        seconds = steps.retrain(project, batch, work.runner.tune(project, batch))
        project.ledger.save_batch(batch, work.claim)
        return seconds

    work.step("retrained", retrain)

    def verify() -> None:
        try:
            batch.facts["checks"] = steps.verify(project, batch, work.requests)
        finally:
            project.ledger.save_batch(batch, work.claim)

    work.step("verified", verify)
    steps.leave_quarantine(project)
    work.step("purged", lambda: steps.purge(project, batch, work.requests, work.claim))
    steps.forget_search_terms(project, batch)
    for one in work.ids:  # one by one: each certificate names the one before
        single = Work(project, work.claim, batch, [one], work.lost, work.runner)
        single.step("certified", lambda one=one: certify(project, batch, one, work.claim))  # type: ignore[misc]
    steps.discard(project, batch)


@contextmanager
def attempt(work: Work) -> Iterator[None]:
    """One try: a failure is stored with the requests, which stay open and can be resumed."""
    ledger = work.project.ledger
    try:
        yield
    except ClaimLostError:
        raise
    except LmeraserError as error:
        still = [one.request_id for one in work.requests if one.is_open]
        if not still:  # all were set aside
            raise
        line = storable(str(error))
        ledger.fail(still, line, work.project.params.service.attempts, work.claim, type(error).__name__)
        state = ledger.get(still[0]).reached
        which = f"request {still[0]}" if len(still) == 1 else f"{len(still)} requests"
        stays = "stays" if len(still) == 1 else "stay"
        raise StepFailedError(f"{which} {stays} open at {state}: {error}; then run `lmeraser resume`", error.exit_code) from error


def take_in(project: Project) -> list[LmeraserError]:
    """Validate what was received and put it in effect; returns why some could not be, which stay received."""
    problems: list[LmeraserError] = []
    for request in project.ledger.all(open_only=True):
        try:
            if request.state in ("received", "validated", "approved"):
                intake.take_effect(project, intake.validate(project, request), solved=False)
        except LmeraserError as error:
            problems.append(error)
    return problems


def _wait_for_window(project: Project) -> None:
    """Let requests come together that come close together."""
    window = project.params.service.window_s
    waiting = [one for one in project.ledger.all(open_only=True) if one.state == "quarantined" and one.batch_id is None]
    if window and waiting:
        age = time.time() - min(datetime.fromisoformat(one.received_at).timestamp() for one in waiting)
        time.sleep(min(window, max(0.0, window - age)))


def run_open(project: Project, runner: Runner | None = None, retry_failed: bool = False) -> list[Request]:
    """Carry out everything that is open; call with the workspace's lock held. Returns the requests that were worked on.

    A batch that fails does not keep others from being purged and certified, but nothing is retrained past a failed retraining.
    Raises: the first failure, after the others had their turn.
    """
    ledger, runner = project.ledger, runner or Runner()
    ledger.void_claims(owner().partition(":")[0] + ":")  # we hold the lock: no other process of this machine works on them
    if retry_failed:
        for request in ledger.all():
            if request.state == "failed":
                ledger.move([request.request_id], request.reached)
    mend(project)
    kept_locks.drop_finished(project.layout, {request.batch_id or "" for request in ledger.all(open_only=True)})
    if retry_failed:
        intake.take_up_again(project)
    problems: list[LmeraserError] = []
    tried: list[str] = []
    while True:
        kept = take_in(project)  # again after each batch: it may have kept somebody from being validated
        _wait_for_window(project)
        claim = ledger.claim(owner(), project.params.service.lease_s, states=WORK)
        mine = [one for one in claim.requests if one.request_id not in tried]
        if not mine:
            ledger.release(claim)
            break
        tried += [one.request_id for one in mine]
        with renewing(project, claim) as lost:
            problems += _run_claim(project, claim, mine, lost, runner, by_person=retry_failed)
        ledger.release(claim)
    problems += kept
    if problems:
        raise problems[0]
    return [ledger.get(one) for one in tried]


def _run_claim(
    project: Project, claim: Claim, mine: list[Request], lost: threading.Event, runner: Runner, by_person: bool
) -> list[LmeraserError]:
    """Finish the batches that were begun, oldest first, then form one of what is new."""
    problems: list[LmeraserError] = []
    batches: dict[str, list[Request]] = {}
    for request in mine:
        if request.batch_id:
            batches.setdefault(request.batch_id, []).append(request)
    for batch_id in [batch_id for batch_id, held in batches.items() if all(one.reached == "quarantined" for one in held)]:
        if ground.is_outdated(project, project.ledger.get_batch(batch_id)):  # planned on another state, and nothing done yet
            project.ledger.dissolve_batch(batch_id, claim)
            mine = [replace(one, batch_id=None) if one.batch_id == batch_id else one for one in mine]
            del batches[batch_id]
    unverified = False
    for batch_id, requests in batches.items():
        batch = project.ledger.get_batch(batch_id)
        work = Work(project, claim, batch, [one.request_id for one in requests], lost, runner, by_person)
        problem = _try(work)
        if problem:
            problems.append(problem)
            unverified |= not all(reached(one.reached, "verified") for one in work.requests)
    fresh = [one for one in mine if one.batch_id is None]
    if fresh and not unverified:
        empty = Batch("", "", {}, {}, {})
        work = Work(project, claim, empty, [one.request_id for one in fresh], lost, runner, by_person)
        problem = _try(work, form=True)
        if problem:
            problems.append(problem)
    return problems


def _try(work: Work, form: bool = False) -> LmeraserError | None:
    try:
        with attempt(work):
            if form:
                work.batch, formed = steps.form_batch(work.project, work.claim, work.requests)
                work.ids = [one.request_id for one in formed]
                work.runner.planned(work.batch, work.ids)
            carry_out(work)
    except LmeraserError as error:
        return error
    return None
