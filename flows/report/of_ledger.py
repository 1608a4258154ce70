"""Requests, their cost and the audits, as the ledger has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.audit.notes import MEMBERSHIP, REBUILD, STORES
from flows.requests.repeats import REPEATS
from lmeraser.core.errors import LmeraserError
from lmeraser.core.redaction import storable
from lmeraser.erase.batches import BatchRecord
from lmeraser.erase.erased import corrections_among, images_among, people_among
from lmeraser.erase.ledger import Ledger
from lmeraser.erase.ledger_events import LedgerEvent, check_events
from lmeraser.erase.ledger_proposals import WHY
from lmeraser.erase.requests import Request
from lmeraser.erase.states import CERTIFIED, FINAL, PROPOSED
from lmeraser.report.facts import CORRECTION, IMAGE, PERSON, REPEATED, Audit, LedgerFacts, RequestFacts, Work


@dataclass(frozen=True)
class Kept:
    """One look into the ledger. Attributes: head: number and digest of the newest certificate that it knows."""

    requests: Sequence[Request]
    events: Sequence[LedgerEvent]
    batches: Mapping[str, BatchRecord]
    ledger: LedgerFacts

    @property
    def as_of(self) -> str | None:
        """When the last event was."""
        return self.events[-1].at if self.events else None

    @property
    def head(self) -> tuple[int, str] | None:
        signed = [(event.data["sequence"], event.data["sha256"]) for event in self.events
                  if event.kind == CERTIFIED and "sha256" in event.data]  # fmt: skip
        return max(signed, default=None)


def read_ledger(ledger: Ledger) -> Kept:
    """Raises: ProjectError if it is damaged."""
    requests, events = ledger.all(), ledger.events()
    problem = None
    try:
        check_events(events)
    except LmeraserError as error:
        problem = str(error)
    names = dict.fromkeys(request.batch_id for request in requests if request.batch_id)
    batches = {name: ledger.get_batch(name) for name in names}
    return Kept(requests, events, batches, LedgerFacts(True, len(events), problem))


def request_facts(kept: Kept, as_of: str) -> tuple[RequestFacts, ...]:
    """In the order of receipt. Who asked, who approved, and what people typed are not told."""
    at: dict[tuple[str | None, str], str] = {}
    plans: dict[str | None, Mapping[str, Any]] = {}
    origins: dict[str | None, str] = {}
    for event in kept.events:
        at[event.request_id, event.kind] = event.at  # the last of a kind
        if event.kind == PROPOSED and event.data.get("why") in WHY:
            origins[event.request_id] = event.data["why"]
        elif event.kind == REPEATS:
            origins[event.request_id] = REPEATED
        if event.kind == "validated" and isinstance(event.data.get("plan"), dict):
            plans[event.request_id] = event.data["plan"]
    return tuple(_request(request, kept, at, plans, origins, as_of) for request in kept.requests)


def _request(
    request: Request,
    kept: Kept,
    at: Mapping[tuple[str | None, str], str],
    plans: Mapping[str | None, Mapping[str, Any]],
    origins: Mapping[str | None, str],
    as_of: str,
) -> RequestFacts:
    batch = kept.batches.get(request.batch_id or "")
    own = batch.plans.get(request.request_id) if batch else None
    planned = own.to_json() if own else plans.get(request.request_id, {})
    shared = batch.outcome.to_json() if batch else planned
    words = request.reason or (request.problem if request.state not in FINAL else None)
    return RequestFacts(
        request.request_id,
        request.state,
        request.received_at,
        request.due_at,
        request.state not in FINAL and request.due_at < as_of,
        at.get((request.request_id, "quarantined")),
        at.get((request.request_id, CERTIFIED)),
        storable(words) if words else None,
        planned.get("records_removed"),
        len(shared["slots_retrained"]) if "slots_retrained" in shared else None,
        shared.get("clusters_total"),
        about(request.pseudonyms),
        origins.get(request.request_id),
    )


def about(pseudonyms: Sequence[str]) -> str:
    """What a request names, in words: people, single images, records that are corrected, or several of these."""
    kinds = ((PERSON, people_among), (IMAGE, images_among), (CORRECTION, corrections_among))
    return " and ".join(word for word, among in kinds if among(pseudonyms)) or PERSON


def work_of(kept: Kept) -> tuple[Work, ...]:
    """What each batch of certified requests cost, in the order in which they were certified."""
    at = {event.request_id: event.at for event in kept.events if event.kind == CERTIFIED}
    done: dict[str, list[Request]] = {}
    for request in kept.requests:
        if request.state == CERTIFIED and request.batch_id:
            done.setdefault(request.batch_id, []).append(request)
    work = []
    for name, requests in done.items():
        outcome = kept.batches[name].outcome
        seconds = max(request.seconds for request in requests)  # each has that of the whole batch
        when = max(at.get(request.request_id, request.received_at) for request in requests)
        touched = len(outcome.slots_retrained)
        counts = (outcome.clusters_total, outcome.records_retrained, outcome.records_total)
        work.append(Work(when, len(requests), outcome.subjects, touched, *counts, round(seconds, 3), outcome.rebuild))
    return tuple(sorted(work, key=lambda batch: batch.at))


def erasures_of(kept: Kept) -> dict[str, int]:
    """How many batches of certified requests retrained each slot."""
    times: dict[str, int] = {}
    done = {request.batch_id for request in kept.requests if request.state == CERTIFIED}
    for name, batch in kept.batches.items():
        for slot in batch.outcome.slots_retrained if name in done else ():
            times[slot] = times.get(slot, 0) + 1
    return times


def audits_of(events: Sequence[LedgerEvent]) -> tuple[Audit, ...]:
    """Oldest first."""
    made = {STORES: _stores, REBUILD: _rebuild, MEMBERSHIP: _membership}
    return tuple(made[event.kind](event.at, event.data) for event in events if event.kind in made)


def _stores(at: str, data: Mapping[str, Any]) -> Audit:
    waiting = data.get("waiting", 0)
    words = f"{data.get('objects', 0):,} files, {data.get('bytes', 0):,} bytes, share {data.get('share', '1/1')}"
    return Audit("stores", at, bool(data["clean"]), words + (f"; {waiting:,} wait for their turn" if waiting else ""))


def _rebuild(at: str, data: Mapping[str, Any]) -> Audit:
    words = f"{data['artifacts']:,} artifacts compared, {data['differing']:,} differ"
    return Audit("rebuild", at, bool(data["equal"]), words, data.get("seconds"))


def _membership(at: str, data: Mapping[str, Any]) -> Audit:
    passed = {"pass": True, "fail": False}.get(data["verdict"])
    words = f"{data['people']} people, {data['retrainings']} retrainings each"
    if "power" in data:
        low, high = data["power_interval"]
        words += f"; power {data['power']:.2f} (95 % interval {low:.2f} to {high:.2f})"
        words += f"; {data['control_detected']} stand out before deletion, {data['after_flagged']} after"
    else:
        words += "; fewer people than a group that is shown, so no number of theirs"
    return Audit("membership", at, passed, words)
