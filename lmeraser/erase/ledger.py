"""The ledger: every request, its state and its events. The source of truth; an engine such as Prefect only moves it on.

A request is committed before it is acknowledged. A coordinator claims requests with a lease; whoever lost its claim can store
nothing more (fencing). Events are append-only, and each holds the digest of the one before it. Subjects are pseudonyms.
"""

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from lmeraser.core.errors import ClaimLostError, ProjectError, RequestError
from lmeraser.erase.batches import BatchRecord
from lmeraser.erase.erased import corrections_among, images_among, people_among
from lmeraser.erase.ledger_base import as_text
from lmeraser.erase.ledger_events import LedgerEvent, check_events
from lmeraser.erase.ledger_pauses import APPROVED_BY, UNCLAIMED, Pauses
from lmeraser.erase.ledger_proposals import Proposals
from lmeraser.erase.ledger_restored import Restoring
from lmeraser.erase.ledger_schema import batches, connect, events, requests, sqlite_url, transaction, words
from lmeraser.erase.requests import Request
from lmeraser.erase.states import BLOCKED, FAILED, FINAL, HOLD, PROPOSED, WAY, may_follow

__all__ = ["Claim", "ClaimLostError", "Ledger", "sqlite_url"]


@dataclass(frozen=True)
class Claim:
    """Requests that one coordinator works on. Attributes: lease_s: it must be renewed within this many seconds."""

    claim_id: str
    owner: str
    lease_s: float
    requests: tuple[Request, ...]


def _request(row: Any) -> Request:
    values = {column.name: getattr(row, column.name) for column in fields(Request)}
    read = {"pseudonyms": tuple(json.loads(row.pseudonyms)), "include_public": bool(row.include_public)}
    return Request(**values | read | {"timings": json.loads(row.timings)})


def _received(pseudonyms: Sequence[str], include_public: bool) -> dict[str, Any]:
    """What the event of a receipt tells."""
    others = {"images": len(images_among(pseudonyms)), "corrections": len(corrections_among(pseudonyms))}
    told = {"subjects": len(people_among(pseudonyms)), "include_public": include_public}
    return told | {kind: count for kind, count in others.items() if count}


def _event(row: Any) -> LedgerEvent:
    return LedgerEvent(row.seq, row.request_id, row.at, row.kind, json.loads(row.data), row.previous, row.digest)


class Ledger(Pauses, Proposals, Restoring):
    """Open with `Ledger.open`. Every method is one transaction."""

    @classmethod
    def open(cls, url: str | URL, clock: Callable[[], float] = time.time) -> "Ledger":
        """Args: url: `sqlite_url(path)` or `postgresql+psycopg://…`. Raises: ProjectError."""
        return cls(connect(url), clock)

    def close(self) -> None:
        self._engine.dispose()

    # Requests

    def receive(self, request_id: str, pseudonyms: Iterable[str], include_public: bool, due_days: int) -> tuple[Request, bool]:
        """Store a request, or recognise it; returns it and whether this changed anything. Committed on return.

        A blocked request that comes again with `include_public` is received anew.
        Raises: RequestError if the id is about other subjects.
        """
        wanted = sorted(set(pseudonyms))
        with transaction(self._engine) as connection:
            row = self._row(connection, request_id)
            if row is None:
                due = datetime.fromtimestamp(self._clock(), UTC) + timedelta(days=due_days)
                made = {
                    "request_id": request_id,
                    "received_at": self._now(),
                    "due_at": due.isoformat(timespec="seconds"),
                    "state": "received",
                    "reached": "received",
                    "pseudonyms": as_text(wanted),
                    "include_public": include_public,
                }
                connection.execute(requests.insert().values(**made))
                self._append(connection, request_id, "received", _received(wanted, include_public))
                return _request(self._row(connection, request_id)), True
            if json.loads(row.pseudonyms) != wanted:
                raise RequestError(
                    f"request {request_id} was already received for other subjects; use a new id for a new request"
                )
            if row.state == BLOCKED and row.blocked_by != HOLD and include_public:
                self._receive_again(connection, row, include_public=True)
                return _request(self._row(connection, request_id)), True
            return _request(row), False

    def receive_again(self, request_id: str) -> None:
        """Let a blocked request be looked at once more."""
        with transaction(self._engine) as connection:
            row = self._known(connection, request_id)
            if row.state == BLOCKED and row.blocked_by != HOLD:
                self._receive_again(connection, row, bool(row.include_public))

    def find(self, request_id: str) -> Request | None:
        with transaction(self._engine) as connection:
            row = self._row(connection, request_id)
            return _request(row) if row else None

    def get(self, request_id: str) -> Request:
        with transaction(self._engine) as connection:
            return _request(self._known(connection, request_id))

    def all(self, open_only: bool = False) -> list[Request]:
        """Every request, in the order of receipt. Args: open_only: as `Request.is_open` has it."""
        wanted = sa.select(requests).order_by(requests.c.number)
        if open_only:
            wanted = wanted.where(requests.c.state.not_in((*FINAL, PROPOSED)))
            wanted = wanted.where(sa.or_(requests.c.state != BLOCKED, requests.c.blocked_by == HOLD))
        with transaction(self._engine) as connection:
            return [_request(row) for row in connection.execute(wanted)]

    def due_until(self, when: datetime) -> list[Request]:
        """Every request that is not finished and due by then, in the order of receipt."""
        due = requests.c.due_at <= when.astimezone(UTC).isoformat(timespec="seconds")  # texts of one form: they sort as times
        wanted = sa.select(requests).where(due, requests.c.state.not_in(FINAL)).order_by(requests.c.number)
        with transaction(self._engine) as connection:
            return [_request(row) for row in connection.execute(wanted)]

    def move(
        self,
        ids: Sequence[str],
        state: str,
        claim: Claim | None = None,
        note: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        """Let requests reach a state; those that are there or further stay. A failed request goes back to what it reached.

        Args: note: kept with the event; changes: columns to set as well (reason, certificate, problem).
        Raises: ProjectError if the state may not follow; ClaimLostError if the claim is another's now.
        """
        with transaction(self._engine) as connection:
            for request_id in ids:
                row = self._known(connection, request_id)
                if row.state in WAY and state in WAY and WAY.index(row.state) >= WAY.index(state):
                    continue
                self._owned(connection, request_id, claim)
                resumed = row.state == FAILED
                held = row.state == BLOCKED and row.blocked_by == HOLD and state not in FINAL
                if held or not may_follow(row.state, state) or (resumed and state != row.reached):
                    raise ProjectError(f"request {request_id} is {row.state} and cannot become {state}; see `lmeraser status`")
                values = {"state": state, **changes}
                if state in WAY:
                    values["reached"] = state
                if resumed:
                    values["attempts"] = 0
                if state in FINAL:
                    values |= {"problem": None, **UNCLAIMED}
                self._set(connection, [request_id], **values)
                self._append(connection, request_id, "resumed" if resumed else state, dict(note or {}))

    def set_back(self, ids: Sequence[str], state: str, claim: Claim | None = None) -> None:
        """Let requests that are further go back to a state from `removed` on: the working tree shows that they are no further."""
        with transaction(self._engine) as connection:
            for request_id in ids:
                row = self._owned(connection, request_id, claim)
                open_on_way = row.state in WAY and row.state not in FINAL
                if open_on_way and WAY.index(row.state) > WAY.index(state) >= WAY.index("removed"):
                    self._set(connection, [request_id], state=state, reached=state)
                    self._append(connection, request_id, "set back", {"from": row.state, "to": state})

    def fail(self, ids: Sequence[str], problem: str, limit: int, claim: Claim | None = None, kind: str = "LmeraserError") -> None:
        """Count a failed try; after `limit` of them a request is failed and waits for a person.

        Args: problem: one line, kept until the request is finished; kind: of error: events cannot be deleted, and get no words.
        """
        with transaction(self._engine) as connection:
            for request_id in ids:
                row = self._owned(connection, request_id, claim)
                used_up = row.attempts + 1 >= limit
                state = FAILED if used_up and may_follow(row.state, FAILED) else row.state
                self._set(connection, [request_id], attempts=row.attempts + 1, problem=problem, state=state)
                self._append(connection, request_id, "attempt failed", {"attempt": row.attempts + 1, "error": kind})

    def add_time(self, ids: Sequence[str], step: str, seconds: float, claim: Claim | None = None) -> None:
        """Add to the time that a step took; `STEP: PART` is part of a step and not counted twice."""
        with transaction(self._engine) as connection:
            for request_id in ids:
                row = self._known(connection, request_id)
                if row.state not in FINAL:
                    self._owned(connection, request_id, claim)
                timings = json.loads(row.timings)
                timings[step] = timings.get(step, 0.0) + seconds
                whole = row.seconds + (0.0 if ": " in step else seconds)
                self._set(connection, [request_id], timings=json.dumps(timings), seconds=whole)

    def approve(self, request_id: str, by: str) -> None:
        """Record that somebody lets a validated request take effect. Who: kept beside the events, which nobody can delete."""
        with transaction(self._engine) as connection:
            row = self._known(connection, request_id)
            if row.state != "validated":
                raise RequestError(f"request {request_id} is {row.state}; only a validated request waits for approval")
            self._set(connection, [request_id], state="approved", reached="approved")
            self._append(connection, request_id, "approved", {})
            connection.execute(words.insert().values(request_id=request_id, at=self._now(), kind=APPROVED_BY, text=by))

    def words(self, request_id: str) -> list[tuple[str, str]]:
        """What people wrote about a request: kind and text, oldest first."""
        wanted = sa.select(words.c.kind, words.c.text).where(words.c.request_id == request_id).order_by(words.c.number)
        with transaction(self._engine) as connection:
            return [(row.kind, row.text) for row in connection.execute(wanted)]

    # Claims

    def claim(self, owner: str, lease_s: float, states: Iterable[str], limit: int | None = None) -> Claim:
        """Take open requests that nobody works on, or whose lease ran out, and whose grace is over. May be empty.

        A lease that ends two lengths or more in the future was given under another clock, and has run out.
        """
        claim_id = str(uuid.uuid4())
        with transaction(self._engine) as connection:
            now = self._clock()  # not before: it may have waited long for other writers, and would see their leases as too long
            run_out = sa.or_(
                requests.c.claim_id.is_(None),
                requests.c.lease_until <= now,
                requests.c.lease_until > now + 2 * requests.c.lease_s,
            )
            ready = sa.or_(requests.c.batch_id.is_not(None), requests.c.ready_at.is_(None), requests.c.ready_at <= now)
            free = sa.select(requests.c.request_id).where(requests.c.state.in_(list(states)), run_out, ready)
            ids = [row.request_id for row in connection.execute(free.order_by(requests.c.number).limit(limit))]
            self._set(connection, ids, claim_id=claim_id, claim_owner=owner, lease_until=now + lease_s, lease_s=lease_s)
            return Claim(claim_id, owner, lease_s, tuple(_request(self._row(connection, request_id)) for request_id in ids))

    def renew(self, claim: Claim) -> None:
        """Raises: ClaimLostError if all of it is somebody else's now."""
        with transaction(self._engine) as connection:
            ours = requests.c.claim_id == claim.claim_id
            changed = connection.execute(requests.update().where(ours).values(lease_until=self._clock() + claim.lease_s))
            if claim.requests and not changed.rowcount and not self._all_final(connection, claim):
                raise ClaimLostError("another coordinator took over these requests, which it finishes")

    def release(self, claim: Claim) -> None:
        with transaction(self._engine) as connection:
            connection.execute(requests.update().where(requests.c.claim_id == claim.claim_id).values(**UNCLAIMED))

    def void_claims(self, owner_prefix: str) -> None:
        """End the claims of owners whose names begin so; for who knows that they are gone."""
        with transaction(self._engine) as connection:
            owned = requests.c.claim_owner.startswith(owner_prefix, autoescape=True)
            connection.execute(requests.update().where(owned).values(**UNCLAIMED))

    def _all_final(self, connection: sa.Connection, claim: Claim) -> bool:
        rows = (self._row(connection, request.request_id) for request in claim.requests)
        return all(row is not None and row.state in FINAL for row in rows)

    # Batches

    def open_batch(self, claim: Claim, ids: Sequence[str], batch: BatchRecord) -> BatchRecord:
        """Put requests together for one retraining; returns the batch with its id.

        Raises: ClaimLostError if one is another's now, or was put on hold or ended meanwhile.
        """
        batch = replace(batch, batch_id=str(uuid.uuid4()), opened_at=self._now())
        columns = {name: as_text(value) for name, value in batch.to_json().items()}
        with transaction(self._engine) as connection:
            self._settle(connection)
            for request_id in ids:
                self._owned(connection, request_id, claim)
            connection.execute(batches.insert().values(batch_id=batch.batch_id, opened_at=batch.opened_at, **columns))
            self._set(connection, ids, batch_id=batch.batch_id)
            for request_id in ids:
                self._append(connection, request_id, "planned", {"batch": batch.batch_id, "requests": len(ids)})
        return batch

    def get_batch(self, batch_id: str) -> BatchRecord:
        """Raises: ProjectError if it is missing, or not as any version wrote it."""
        with transaction(self._engine) as connection:
            row = connection.execute(sa.select(batches).where(batches.c.batch_id == batch_id)).one_or_none()
        if row is None:
            raise ProjectError("a batch of the ledger is missing; restore .lmeraser/ledger.db from your backup")
        try:
            plan, before, facts = (json.loads(text) for text in (row.plan, row.before, row.facts))
            return BatchRecord.from_json(plan, before, facts, row.batch_id, row.opened_at)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ProjectError("a batch of the ledger is damaged; restore .lmeraser/ledger.db from your backup") from error

    def dissolve_batch(self, batch_id: str, claim: Claim | None = None) -> None:
        """Let go of a batch for whose requests nothing was done yet: they are planned anew."""
        with transaction(self._engine) as connection:
            ids = self._ids_of(connection, batch_id)
            for request_id in ids:
                self._owned(connection, request_id, claim)
                self._append(connection, request_id, "plan dropped", {"batch": batch_id})
            self._set(connection, ids, batch_id=None)

    def save_batch(self, batch: BatchRecord, claim: Claim | None = None) -> None:
        """Keep what the steps of a batch found."""
        with transaction(self._engine) as connection:
            for request_id in self._ids_of(connection, batch.batch_id):
                if self._known(connection, request_id).state not in FINAL:
                    self._owned(connection, request_id, claim)
            chosen = batches.update().where(batches.c.batch_id == batch.batch_id)
            connection.execute(chosen.values(facts=as_text(batch.to_json()["facts"])))

    # Events

    def note(self, request_id: str | None, kind: str, data: Mapping[str, Any]) -> None:
        """Append an event that changes no state."""
        with transaction(self._engine) as connection:
            self._append(connection, request_id, kind, dict(data))

    def events(self, request_id: str | None = None, kinds: Collection[str] = ()) -> list[LedgerEvent]:
        """Oldest first. Args: request_id: of one request alone; kinds: of these alone."""
        wanted = sa.select(events).order_by(events.c.seq)
        if request_id is not None:
            wanted = wanted.where(events.c.request_id == request_id)
        if kinds:
            wanted = wanted.where(events.c.kind.in_(list(kinds)))
        with transaction(self._engine) as connection:
            return [_event(row) for row in connection.execute(wanted)]

    def events_after(self, seq: int, limit: int) -> list[LedgerEvent]:
        """At most so many events after the one of that number, oldest first."""
        wanted = sa.select(events).where(events.c.seq > seq).order_by(events.c.seq).limit(limit)
        with transaction(self._engine) as connection:
            return [_event(row) for row in connection.execute(wanted)]

    def last_event(self, kind: str) -> LedgerEvent | None:
        """The newest event of a kind."""
        wanted = sa.select(events).where(events.c.kind == kind).order_by(events.c.seq.desc()).limit(1)
        with transaction(self._engine) as connection:
            row = connection.execute(wanted).one_or_none()
            return _event(row) if row else None

    def head(self) -> tuple[int, str]:
        """Number and digest of the last event."""
        with transaction(self._engine) as connection:
            return self._head(connection)

    def verify_chain(self) -> int:
        """Check every event against the one before; returns how many. Raises: VerificationError naming the first broken one."""
        chain = self.events()
        check_events(chain)
        return len(chain)

    def scrub(self) -> None:
        """Leave no old page behind: SQLite's write-ahead log is written back and cut."""
        if self._engine.dialect.name == "sqlite":
            with closing(self._engine.raw_connection()) as raw:
                raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # Inside a transaction

    def _ids_of(self, connection: sa.Connection, batch_id: str) -> list[str]:
        return [row.request_id for row in connection.execute(sa.select(requests).where(requests.c.batch_id == batch_id))]

    def _receive_again(self, connection: sa.Connection, row: Any, include_public: bool) -> None:
        values = {"state": "received", "reached": "received", "include_public": include_public, "reason": None}
        self._set(connection, [row.request_id], **values)
        self._append(connection, row.request_id, "received", _received(json.loads(row.pseudonyms), include_public))

    def _owned(self, connection: sa.Connection, request_id: str, claim: Claim | None) -> Any:
        row = self._known(connection, request_id)
        if claim is not None and row.claim_id != claim.claim_id:
            raise ClaimLostError(f"request {request_id} was taken over by another coordinator, which finishes it")
        return row
