"""What makes a request wait though it is in effect, or ends it before anything is destroyed: grace, withdrawal, holds, extension.

Part of the ledger. A hold is on one request, or on a person, also before anybody asked. Holds block a request at `quarantined`:
its people stay out of what is served, and nothing is destroyed. Whoever reads the ledger settles them first, so that no hold is
overlooked and no release is forgotten, whichever process was killed in between. Reasons are people's words: beside the events.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from lmeraser.core.errors import RequestError
from lmeraser.erase.erased import concerned
from lmeraser.erase.ledger_base import Transactions
from lmeraser.erase.ledger_schema import events, holds, requests, transaction, words
from lmeraser.erase.states import BLOCKED, CERTIFIED, FINAL, HOLD, REJECTED, reached

UNCLAIMED = {"claim_id": None, "claim_owner": None, "lease_until": None, "lease_s": None}
EXTENDED = "extended"  # a kind of event
EXTENSION, APPROVED_BY = "extension reason", "approved by"  # kinds of words
MOST_DAYS = 60  # of an extension: GDPR, article 12(3): two further months


@dataclass(frozen=True)
class Hold:
    """Attributes: until: seconds since 1970; request_id: None for one on a person, whose pseudonym it has instead."""

    number: int
    request_id: str | None
    pseudonym: str | None
    until: float
    reason: str | None

    def is_on(self, request_id: str, pseudonyms: Iterable[str]) -> bool:
        return self.request_id == request_id or self.pseudonym in concerned(pseudonyms)

    @property
    def last_day(self) -> str:
        """The last day on which it holds, as a date in UTC."""
        return datetime.fromtimestamp(self.until - 1, UTC).date().isoformat()


class Pauses(Transactions):
    """Every public method is one transaction, as in the whole ledger."""

    def time(self) -> float:
        """Seconds since 1970, by the clock that grace and holds are counted by."""
        return self._clock()

    # Grace

    def withdraw(self, request_id: str) -> None:
        """End a request for whoever sent it, as long as its grace lasts. Raises: RequestError once that is over."""
        with transaction(self._engine) as connection:
            row = self._known(connection, request_id)
            if row.state in FINAL or _is_begun(row):
                raise RequestError(f"request {request_id} is {row.state}; only one whose erasure has not begun can be withdrawn")
            if reached(row.reached, "quarantined"):
                _require_grace(row, self._clock())
            self._end(connection, request_id, "withdrawn", "withdrawn")

    def cancel(self, request_id: str, by: str = "the operator", only: str | None = None) -> None:
        """End a request for which nothing was done yet. Args: only: in this state. Raises: RequestError if something was."""
        with transaction(self._engine) as connection:
            row = self._known(connection, request_id)
            if only and row.state != only:
                raise RequestError(f"request {request_id} is {row.state}; only one that is {only} can be ended so")
            if row.state in FINAL or _is_begun(row):
                raise RequestError(f"request {request_id} is {row.state}; only one that nothing was done for can be cancelled")
            self._end(connection, request_id, "cancelled", f"cancelled by {by}")

    def _end(self, connection: sa.Connection, request_id: str, why: str, reason: str) -> None:
        self._set(connection, [request_id], state=REJECTED, reason=reason, problem=None, blocked_by=None, **UNCLAIMED)
        self._append(connection, request_id, REJECTED, {"why": why})

    # Extension

    def extend(self, request_id: str, days: int, reason: str) -> None:
        """Move the due date, once. Raises: RequestError if it is late, finished, extended already, or the days are too many."""
        with transaction(self._engine) as connection:
            row = self._known(connection, request_id)
            due, now = datetime.fromisoformat(row.due_at), datetime.fromtimestamp(self._clock(), UTC)
            if row.state in FINAL:
                raise RequestError(f"request {request_id} is {row.state}; only one that is not finished can be extended")
            if not 1 <= days <= MOST_DAYS:
                raise RequestError(f"--days is {days}; expected 1 to {MOST_DAYS} (GDPR, article 12(3): two further months)")
            if due < now:
                raise RequestError(f"request {request_id} was due {row.due_at[:10]}; an extension is told before the due date")
            if connection.execute(
                sa.select(events.c.seq).where(events.c.request_id == request_id, events.c.kind == EXTENDED)
            ).first():
                raise RequestError(f"request {request_id} was extended already; its due date is {row.due_at[:10]}")
            later = (due + timedelta(days=days)).isoformat(timespec="seconds")
            self._set(connection, [request_id], due_at=later)
            self._append(connection, request_id, EXTENDED, {"days": days, "from": row.due_at, "to": later})
            written = {"request_id": request_id, "at": now.isoformat(timespec="seconds"), "kind": EXTENSION, "text": reason}
            connection.execute(words.insert().values(**written))

    # Holds

    def hold(self, until: float, reason: str, request_id: str | None = None, pseudonym: str | None = None) -> None:
        """Let nothing of a request, or of a person, be destroyed until a time. Raises: RequestError if that has begun."""
        with transaction(self._engine) as connection:
            for row in self._rows_on(connection, request_id, pseudonym):
                if row.state in FINAL or _is_begun(row):
                    raise RequestError(_too_late_to_hold(row))
            values = {"request_id": request_id, "pseudonym": pseudonym, "until": until, "reason": reason}
            number = connection.execute(holds.insert().values(**values).returning(holds.c.number)).scalar_one()
            self._append(connection, request_id, "hold", {"hold": number, "until": _iso(until)})
            self._settle(connection)

    def release_hold(self, request_id: str | None = None, pseudonym: str | None = None) -> list[str]:
        """End the holds on a request, or on a person; returns the ids of the requests that go on.

        Raises: RequestError if there is none.
        """
        with transaction(self._engine) as connection:
            if request_id is not None:
                self._known(connection, request_id)
            self._settle(connection)
            before = self._held_ids(connection)
            of = holds.c.request_id == request_id if request_id is not None else holds.c.pseudonym == pseudonym
            mine = self._active(connection, of)
            if not mine:
                raise RequestError(_no_hold(request_id, before))
            for hold in mine:
                self._lift(connection, hold, "released")
            self._settle(connection)
            return sorted(before - self._held_ids(connection))

    def settle_holds(self) -> None:
        """Block what is on hold and was not begun, and let go on what no hold is on any more, by its release or its date."""
        with transaction(self._engine) as connection:
            self._settle(connection)

    def holds_on(self, request_id: str, pseudonyms: Sequence[str]) -> list[Hold]:
        """Those that last, the longest last."""
        with transaction(self._engine) as connection:
            active = [hold for hold in self._active(connection) if hold.until > self._clock()]
            lasting = [hold for hold in active if hold.is_on(request_id, pseudonyms)]
            return sorted(lasting, key=lambda hold: hold.until)

    def people_on_hold(self) -> set[str]:
        """Pseudonyms."""
        with transaction(self._engine) as connection:
            return {hold.pseudonym for hold in self._active(connection) if hold.pseudonym}

    def drop_reasons(self, ids: Sequence[str]) -> None:
        """Delete what people wrote about holds and extensions of requests whose people are erased: it may be about them."""
        with transaction(self._engine) as connection:
            written = list(connection.execute(sa.select(holds).where(holds.c.reason.is_not(None))))
            for request_id in ids:
                about = words.c.request_id == request_id, words.c.kind == EXTENSION
                connection.execute(words.delete().where(*about))
                pseudonyms = set(json.loads(self._known(connection, request_id).pseudonyms)) if written else set()
                theirs = [row.number for row in written if row.request_id == request_id or row.pseudonym in pseudonyms]
                for number in theirs:
                    connection.execute(holds.update().where(holds.c.number == number).values(reason=None))

    def drop_words(self, ended: str, approved: str) -> int:
        """Delete what people wrote about requests that ended before a time, and about holds that did; returns how many.

        Args: approved: the same for who approved. Both ISO 8601, UTC, seconds: texts of one form sort as times.
        """
        with transaction(self._engine) as connection:
            last = sa.select(events.c.request_id, sa.func.max(events.c.at).label("at")).where(events.c.kind.in_(FINAL))
            done = last.group_by(events.c.request_id).subquery()
            limit = sa.case((words.c.kind == APPROVED_BY, approved), else_=ended)
            old = sa.select(words.c.number).join(done, done.c.request_id == words.c.request_id).where(done.c.at < limit)
            gone = connection.execute(words.delete().where(words.c.number.in_(old)))
            over = holds.c.ended_at < ended, holds.c.reason.is_not(None)
            return int(gone.rowcount) + int(connection.execute(holds.update().where(*over).values(reason=None)).rowcount)

    # Inside a transaction

    def _settle(self, connection: sa.Connection) -> None:
        for hold in self._active(connection):
            if hold.until <= self._clock():
                self._lift(connection, hold, "its date")
        lasting = self._active(connection)
        held = sa.and_(requests.c.state == BLOCKED, requests.c.blocked_by == HOLD)
        waiting = sa.and_(requests.c.state == "quarantined", requests.c.batch_id.is_(None))
        asked = sa.select(requests).where(sa.or_(held, waiting) if lasting else held).order_by(requests.c.number)
        for row in list(connection.execute(asked)):
            pseudonyms = json.loads(row.pseudonyms)
            on = [hold for hold in lasting if hold.is_on(row.request_id, pseudonyms)]
            if on:
                self._block(connection, row, max(on, key=lambda hold: hold.until))
            elif row.state == BLOCKED:
                self._set(connection, [row.request_id], state=row.reached, blocked_by=None, reason=None)
                self._append(connection, row.request_id, "released", {})

    def _block(self, connection: sa.Connection, row: Any, hold: Hold) -> None:
        whom, how = ("on hold", row.request_id) if hold.request_id else ("a person of it is on hold", "--subject S")
        reason = f"{whom} until {hold.last_day}; `lmeraser release {how}` ends it before"
        if row.state != BLOCKED:
            self._set(connection, [row.request_id], state=BLOCKED, blocked_by=HOLD, reason=reason, **UNCLAIMED)
            self._append(connection, row.request_id, BLOCKED, {"why": HOLD, "hold": hold.number})
        elif row.reason != reason:
            self._set(connection, [row.request_id], reason=reason)

    def _lift(self, connection: sa.Connection, hold: Hold, why: str) -> None:
        connection.execute(holds.update().where(holds.c.number == hold.number).values(ended_at=_iso(self._clock())))
        self._append(connection, hold.request_id, "hold ended", {"hold": hold.number, "why": why})

    def _active(self, connection: sa.Connection, of: Any = None) -> list[Hold]:
        """Holds that nobody ended. Args: of: a condition; else all."""
        asked = sa.select(holds).where(holds.c.ended_at.is_(None)).order_by(holds.c.number)
        rows = connection.execute(asked if of is None else asked.where(of))
        return [Hold(row.number, row.request_id, row.pseudonym, row.until, row.reason) for row in rows]

    def _held_ids(self, connection: sa.Connection) -> set[str]:
        held = sa.select(requests.c.request_id).where(requests.c.state == BLOCKED, requests.c.blocked_by == HOLD)
        return {row.request_id for row in connection.execute(held)}

    def _rows_on(self, connection: sa.Connection, request_id: str | None, pseudonym: str | None) -> list[Any]:
        """The request, or those of a person that are not finished."""
        if request_id is not None:
            return [self._known(connection, request_id)]
        rows = connection.execute(sa.select(requests).where(requests.c.state.not_in(FINAL)))
        return [row for row in rows if pseudonym in concerned(json.loads(row.pseudonyms))]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _is_begun(row: Any) -> bool:
    """Whether a batch was formed: from there on a coordinator may be at it."""
    return reached(row.reached, "removed") or row.batch_id is not None


def _require_grace(row: Any, now: float) -> None:
    """Raise RequestError unless a request that is in effect may still be withdrawn."""
    instead = f"`lmeraser cancel {row.request_id}` ends it, as the operator, while nothing was done for it"
    if row.ready_at is None:
        raise RequestError(f"request {row.request_id} is in effect and came without grace (service.grace_s); {instead}")
    if row.ready_at <= now:
        raise RequestError(f"the grace of request {row.request_id} ended at {_iso(row.ready_at)}; {instead}")


def _too_late_to_hold(row: Any) -> str:
    if row.state == CERTIFIED:
        return f"request {row.request_id} is certified: its people are erased, and nothing is left to hold"
    if row.state == REJECTED:
        return f"request {row.request_id} is rejected: nothing is erased for it, so there is nothing to hold"
    return (
        f"request {row.request_id} is being carried out (it reached {row.reached}) and cannot be held any more; what was "
        "destroyed cannot be brought back"
    )


def _no_hold(request_id: str | None, held: set[str]) -> str:
    if request_id is None:
        return "no hold is on this person; check the spelling, or release the hold on the request with its id"
    if request_id in held:
        return f"the hold is on a person of request {request_id}, not on the request; `lmeraser release --subject S` ends it"
    return f"no hold is on request {request_id}; `lmeraser status {request_id}` tells what it waits for"
