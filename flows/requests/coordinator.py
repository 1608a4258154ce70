"""Carry requests from acceptance to certificate. The ledger says what is open; a claim with a lease says who works on it.

A try that fails leaves its requests open at the step that they reached, with the reason; `lmeraser resume`, or the sweep, goes
on from there. Requests that wait together are carried out together: what several of them touch is retrained once.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from flows.dvc import lock_backups
from flows.project import Project
from flows.requests import batch as batches
from flows.requests import ground, intake
from flows.requests.certify import certify
from flows.requests.purge_step import drop_search_terms, purge
from flows.requests.quarantine import leave_quarantine, mend, renew
from flows.requests.retrain import retrain
from flows.requests.verify import verify
from flows.requests.work import Step, Work
from flows.run import before
from flows.run.waves import Workers
from lmeraser.core.errors import LmeraserError, StepFailedError
from lmeraser.core.progress import say
from lmeraser.core.redaction import storable
from lmeraser.erase.batches import BatchRecord
from lmeraser.erase.ledger import Claim, ClaimLostError
from lmeraser.erase.requests import Request
from lmeraser.erase.states import CERTIFIED, reached

Result = TypeVar("Result")

STEPS: tuple[tuple[str, Step], ...] = (
    ("removed", batches.remove),
    ("retrained", retrain),
    ("verified", verify),
    ("purged", purge),
    (CERTIFIED, certify),
)
# Taken by every try once the state is reached: each does nothing where there is nothing to do.
AFTERWARDS: Mapping[str, Callable[[Work], None]] = {
    "verified": leave_quarantine,
    "purged": drop_search_terms,
    CERTIFIED: batches.discard,
}
RESUME = "`lmeraser resume`"
WAITING = ("quarantined", *(state for state, _ in STEPS[:-1]))  # states that a coordinator moves on


class Runner:
    """How steps are run and shown. This one runs them here and shows nothing; Prefect's is in `flows/service/forget.py`."""

    def run(self, state: str, act: Callable[[], Result]) -> Result:
        """Take a step."""
        return act()

    def workers(self, project: Project, batch: BatchRecord) -> Workers | None:
        """Who tunes the clusters of a batch; None: this machine's own processes."""
        return None

    def planned(self, batch: BatchRecord, ids: Sequence[str]) -> None:
        """A batch was formed."""

    def reached(self, state: str, ids: Sequence[str]) -> None:
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


@dataclass(frozen=True)
class Turn:
    """A claim while this process works on it. Attributes: lost: set once somebody else took it over; by_person: see `realign`."""

    project: Project
    claim: Claim
    lost: threading.Event
    runner: Runner
    by_person: bool


def carry_out(turn: Turn, batch: BatchRecord, ids: tuple[str, ...]) -> None:
    """Every step of a batch, in order, from where the working tree shows that it is."""
    project, claim = turn.project, turn.claim
    requests = [project.ledger.get(request_id) for request_id in ids]
    batch = ground.realign(project, batch, requests, claim, turn.by_person)
    work = Work(project, claim, batch, ids, turn.runner.workers(project, batch))
    for state, step in STEPS:
        # Certificates one by one: each names the one before.
        groups = [(request_id,) for request_id in ids] if state == CERTIFIED else [ids]
        for group in groups:
            work = replace(work, batch=take(turn, replace(work, ids=group), state, step), ids=ids)
        if state in AFTERWARDS:
            AFTERWARDS[state](work)


def take(turn: Turn, work: Work, state: str, step: Step) -> BatchRecord:
    """Take a step unless it was taken, time it, and store what it found and that it was taken. Returns the batch then."""
    ledger, claim = turn.project.ledger, turn.claim
    waiting = [request.request_id for request in work.requests if not reached(request.reached, state)]
    if not waiting:
        return work.batch
    if turn.lost.is_set():
        raise ClaimLostError("another coordinator took over these requests, which it finishes")
    start = time.monotonic()
    done = turn.runner.run(state, lambda: step(work))
    took = time.monotonic() - start
    if done.batch != work.batch:
        ledger.save_batch(done.batch, claim)
    ledger.add_time(waiting, state, took, claim)
    for part, seconds in done.seconds.items():
        ledger.add_time(waiting, f"{state}: {part}", seconds, claim)
    ledger.move(waiting, state, claim)
    turn.runner.reached(state, waiting)
    return done.batch


@contextmanager
def attempt(project: Project, claim: Claim, ids: Sequence[str]) -> Iterator[None]:
    """One try: a failure is stored with the requests, which stay open and can be resumed."""
    ledger = project.ledger
    try:
        yield
    except ClaimLostError:
        raise
    except LmeraserError as error:
        still = [request.request_id for request in map(ledger.get, ids) if request.is_open and not request.is_held]
        if not still:  # all were set aside
            raise
        reason = str(error)
        ledger.fail(still, storable(reason), project.params.service.attempts, claim, type(error).__name__)
        state = ledger.get(still[0]).reached
        which = f"request {still[0]}" if len(still) == 1 else f"{len(still)} requests"
        stays = "stays" if len(still) == 1 else "stay"
        then = "" if RESUME in reason else f"; then run {RESUME}"  # many reasons say it themselves
        raise StepFailedError(f"{which} {stays} open at {state}: {reason}{then}", error.exit_code) from error


def take_in(project: Project) -> list[LmeraserError]:
    """Validate what was received and put it in effect; returns why some could not be, which stay received. Proposals whose days
    are over are received by that. Holds that were released, or whose date is past, hold nobody any more."""
    problems: list[LmeraserError] = []
    project.ledger.settle_proposals()
    for request in project.ledger.all(open_only=True):
        try:
            if request.state in ("received", "validated", "approved"):
                intake.take_effect(project, intake.validate(project, request), solved=False)
        except LmeraserError as error:
            problems.append(error)
    project.ledger.settle_holds()
    return problems


def _wait_for_window(project: Project) -> None:
    """Let requests come together that come close together."""
    window, now = project.params.service.window_s, project.ledger.time()
    effective = [request for request in project.ledger.all(open_only=True) if request.state == "quarantined"]
    waiting = [request for request in effective if request.batch_id is None and not request.in_grace(now)]
    if window and waiting:
        age = time.time() - min(datetime.fromisoformat(request.received_at).timestamp() for request in waiting)
        time.sleep(min(window, max(0.0, window - age)))


def run_open(
    project: Project, runner: Runner | None = None, retry_failed: bool = False, only: Collection[str] = ()
) -> list[Request]:
    """Carry out everything that is open; call with the workspace's lock held. Returns the requests that were worked on.

    A batch that fails does not keep others from being purged and certified, but nothing is retrained past a failed retraining.
    Args: only: ids of the failed requests that are tried again; none: all of them.
    Raises: the first failure, after the others had their turn.
    """
    ledger, runner = project.ledger, runner or Runner()
    ledger.void_claims(owner().partition(":")[0] + ":")  # we hold the lock: no other process of this machine works on them
    if retry_failed:
        for request in ledger.all():
            if request.state == "failed" and (not only or request.request_id in only):
                ledger.move([request.request_id], request.reached)
    mend(project)
    renew(project)
    under_way = {request.batch_id or "" for request in ledger.all(open_only=True)}
    lock_backups.drop_finished(project.layout, under_way)
    before.drop_finished(project.layout, under_way)
    if retry_failed:
        intake.take_up_again(project)
    problems: list[LmeraserError] = []
    tried: list[str] = []
    while True:
        kept = take_in(project)  # again after each batch: it may have kept somebody from being validated
        _wait_for_window(project)
        claim = ledger.claim(owner(), project.params.service.lease_s, states=WAITING)
        mine = [request for request in claim.requests if request.request_id not in tried]
        if not mine:
            ledger.release(claim)
            break
        tried += [request.request_id for request in mine]
        with renewing(project, claim) as lost:
            problems += _run_claim(Turn(project, claim, lost, runner, by_person=retry_failed), mine)
        ledger.release(claim)
    problems += kept
    if problems:
        raise problems[0]
    return [ledger.get(request_id) for request_id in tried]


def _run_claim(turn: Turn, mine: list[Request]) -> list[LmeraserError]:
    """Finish the batches that were begun, oldest first, then form one of what is new."""
    ledger = turn.project.ledger
    problems: list[LmeraserError] = []
    unverified = False
    begun = _begun(turn, mine)
    for batch_id, ids in begun.items():
        problem = _finish(turn, ledger.get_batch(batch_id), ids)
        if problem:
            problems.append(problem)
            unverified |= not all(reached(ledger.get(request_id).reached, "verified") for request_id in ids)
    taken = {request_id for ids in begun.values() for request_id in ids}
    fresh = [request for request in mine if request.request_id not in taken]
    if fresh and not unverified:
        problem = _start(turn, fresh)
        if problem:
            problems.append(problem)
    return problems


def _begun(turn: Turn, mine: Sequence[Request]) -> dict[str, tuple[str, ...]]:
    """The requests of each batch, oldest first, without batches that were planned on another state and not begun: those are
    dissolved, and their requests planned anew. So are those not begun of which a request is on hold."""
    ledger = turn.project.ledger
    batch_ids = list(dict.fromkeys(request.batch_id for request in mine if request.batch_id))
    begun: dict[str, tuple[str, ...]] = {}
    for batch_id in batch_ids:
        requests = [request for request in mine if request.batch_id == batch_id]
        unbegun = all(request.reached == "quarantined" for request in requests)
        held = any(ledger.holds_on(request.request_id, request.pseudonyms) for request in requests) if unbegun else False
        if unbegun and (held or ground.is_outdated(turn.project, ledger.get_batch(batch_id))):
            ledger.dissolve_batch(batch_id, turn.claim)
        else:
            begun[batch_id] = tuple(request.request_id for request in requests)
    return begun


def _start(turn: Turn, requests: Sequence[Request]) -> LmeraserError | None:
    """Form a batch of requests and carry it out; returns why that failed."""
    requests = _still_claimed(turn, requests)
    if not requests:
        return None
    ids = tuple(request.request_id for request in requests)
    try:
        with attempt(turn.project, turn.claim, ids):
            batch, formed = batches.form(turn.project, turn.claim, requests)
            turn.runner.planned(batch, formed)
    except ClaimLostError as error:
        left = _still_claimed(turn, requests)
        # Somebody held, withdrew or cancelled a request meanwhile: the others go on.
        return _start(turn, left) if len(left) < len(requests) else error
    except LmeraserError as error:
        return error
    return _finish(turn, batch, formed)


def _still_claimed(turn: Turn, requests: Sequence[Request]) -> list[Request]:
    """Those that nobody held, withdrew or cancelled since they were claimed."""
    ledger = turn.project.ledger
    ledger.settle_holds()
    return [now for now in (ledger.get(request.request_id) for request in requests) if now.state == "quarantined"]


def _finish(turn: Turn, batch: BatchRecord, ids: tuple[str, ...]) -> LmeraserError | None:
    """Carry a batch out; returns why that failed."""
    try:
        with attempt(turn.project, turn.claim, ids):
            carry_out(turn, batch, ids)
    except LmeraserError as error:
        return error
    return None
