"""What is still to be told, and to whom: subscriptions, and the deliveries that follow from the ledger's events.

A subscription is a client's callback for one request, or a hook of the operator for all. `collect` reads the ledger's events
since last time and writes one delivery for each that a subscription is about, in one transaction with how far it read: nothing
is left out, and nothing twice. A delivery leaves the list when it arrived. So each arrives at least once, and those of one
request in order. Erasures know nothing of this: they write events, as ever.
"""

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from flows.door.store import Store
from lmeraser.erase.ledger import Ledger
from lmeraser.erase.ledger_events import LedgerEvent
from lmeraser.erase.requests import Request
from lmeraser.erase.states import STATES, status

CALLBACK, WEBHOOK, COMMAND, ENDED = "callback", "webhook", "command", "ended"
HOOK_KINDS = (WEBHOOK, COMMAND)
IN_EFFECT, LATE_SOON, LATE = "in_effect", "late_soon", "late"
OF_EVENTS = {
    "proposed": "proposed",
    "received": "received",
    "quarantined": IN_EFFECT,
    "certified": "certified",
    "failed": "failed",
}  # ledger to hook
EVENTS = ("proposed", "received", IN_EFFECT, "certified", LATE_SOON, LATE, "failed")
LAST = ("completed", "cancelled")  # no status follows

ATTEMPTS = 60  # about two days
LONGEST = 3600.0  # s between two tries
LEASE = 300.0  # s; whoever took a delivery and was killed has lost it
READ = 500  # events at a time


@dataclass(frozen=True)
class Delivery:
    """Attributes: event: a hook's event, or the status that a callback tells; delivery_id: the same at each try."""

    number: int
    delivery_id: str
    subscription_id: str
    kind: str
    target: str
    secret: str
    request_id: str
    event: str
    at: str
    attempts: int


def claim(store: Store, request_id: str, client: str) -> bool:
    """Whether a request's id is this client's: it is who comes first with it."""
    with store.transaction() as connection:
        connection.execute("INSERT OR IGNORE INTO owners VALUES (?, ?)", (request_id, client))
        row = connection.execute("SELECT client FROM owners WHERE request_id = ?", (request_id,)).fetchone()
        return bool(row["client"] == client)


def owner(store: Store, request_id: str) -> str | None:
    with store.transaction() as connection:
        row = connection.execute("SELECT client FROM owners WHERE request_id = ?", (request_id,)).fetchone()
        return str(row["client"]) if row else None


def subscribe(store: Store, request_id: str, urls: Sequence[str], cursor: int) -> None:
    """Let addresses be called back about a request; again where that was given up. The same twice has one effect.

    Args: cursor: the number of the ledger's event from which on it is told.
    """
    with store.transaction() as connection:
        for url in urls:
            known_as = hashlib.sha256(f"{request_id}\n{url}".encode()).hexdigest()[:16]
            connection.execute(
                "INSERT INTO subscriptions VALUES (?, ?, ?, '', '[]', 0, ?, ?, 'pending', 0) "
                "ON CONFLICT (subscription_id) DO UPDATE SET kind = excluded.kind, target = excluded.target WHERE kind = ?",
                (known_as, CALLBACK, url, request_id, cursor, ENDED),
            )


def add_hook(store: Store, kind: str, target: str, secret: str, events: Iterable[str], days_before: int, cursor: int) -> str:
    """Args: target: a URL, or a command as a JSON list; cursor: the ledger's last event: what was before is not told."""
    hook = secrets.token_hex(4)
    with store.transaction() as connection:
        connection.execute(
            "INSERT INTO subscriptions VALUES (?, ?, ?, ?, ?, ?, NULL, ?, '', 0)",
            (hook, kind, target, secret, json.dumps(list(events)), days_before, cursor),
        )
    return hook


def subscriptions(store: Store) -> list[dict[str, Any]]:
    """Every subscription with how many deliveries wait for it, and the last problem."""
    waiting = "(SELECT COUNT(*) FROM deliveries d WHERE d.subscription_id = s.subscription_id) AS waiting"
    problem = "(SELECT problem FROM deliveries d WHERE d.subscription_id = s.subscription_id AND problem IS NOT NULL) AS problem"
    with store.transaction() as connection:
        rows = connection.execute(f"SELECT s.*, {waiting}, {problem} FROM subscriptions s ORDER BY s.rowid").fetchall()  # noqa: S608
    return [dict(row) | {"events": json.loads(row["events"])} for row in rows]


def remove(store: Store, subscription_id: str) -> bool:
    """Forget a subscription and what waits for it; returns whether there was one."""
    with store.transaction() as connection:
        gone = connection.execute("DELETE FROM subscriptions WHERE subscription_id = ?", (subscription_id,))
        return gone.rowcount > 0


# From events to deliveries


def collect(store: Store, ledger: Ledger, now: datetime) -> None:
    """Write the deliveries of all that happened since last time, and of what is late or soon will be."""
    with store.transaction() as connection:
        behind, furthest = connection.execute(
            "SELECT MIN(cursor), MAX(cursor) FROM subscriptions WHERE kind != ?", (ENDED,)
        ).fetchone()
    if behind is None:
        return
    head = ledger.head()[0]  # after the cursors, or another courier's would seem to be too far
    if furthest > head:  # a ledger that was restored from a backup: go on from its end
        with store.transaction() as connection:
            connection.execute("UPDATE subscriptions SET cursor = ? WHERE cursor > ?", (head, head))
    while behind < head and (events := ledger.events_after(behind, READ)):
        with store.transaction() as connection:
            for row in connection.execute("SELECT * FROM subscriptions WHERE kind != ?", (ENDED,)).fetchall():
                _follow(connection, row, [event for event in events if event.seq > row["cursor"]])
        behind = events[-1].seq
    _warn(store, ledger, now)


def _follow(connection: sqlite3.Connection, row: sqlite3.Row, events: Sequence[LedgerEvent]) -> None:
    """Let one subscription take up events."""
    told = row["status"]
    for event in events:
        name = None
        if row["kind"] == CALLBACK and event.request_id == row["request_id"] and event.kind in STATES:
            name = status(event.kind) if status(event.kind) != told else None
            told = name or told
        elif row["kind"] in HOOK_KINDS and OF_EVENTS.get(event.kind) in json.loads(row["events"]):
            name = OF_EVENTS[event.kind]
        if name and event.request_id:
            _put(connection, row["subscription_id"], event.request_id, name, event.at)
    if events:
        connection.execute(
            "UPDATE subscriptions SET cursor = ?, status = ? WHERE subscription_id = ?",
            (events[-1].seq, told, row["subscription_id"]),
        )


def _put(connection: sqlite3.Connection, subscription_id: str, request_id: str, event: str, at: str) -> None:
    columns = "delivery_id, subscription_id, request_id, event, at"
    values = (secrets.token_hex(12), subscription_id, request_id, event, at)
    connection.execute(f"INSERT INTO deliveries ({columns}) VALUES (?, ?, ?, ?, ?)", values)  # noqa: S608


def _warn(store: Store, ledger: Ledger, now: datetime) -> None:
    """Tell once of each request that is late, and once of each that is not finished so many days before."""
    with store.transaction() as connection:
        rows = connection.execute("SELECT * FROM subscriptions WHERE kind IN (?, ?)", HOOK_KINDS).fetchall()
    wanted = [row for row in rows if {LATE, LATE_SOON} & set(json.loads(row["events"]))]
    if not wanted:
        return
    due = ledger.due_until(now + timedelta(days=max(row["days_before"] for row in wanted)))
    with store.transaction() as connection:
        for request in due:
            for row in wanted:
                _warn_of(connection, row, request, now)


def _warn_of(connection: sqlite3.Connection, row: sqlite3.Row, request: Request, now: datetime) -> None:
    left = datetime.fromisoformat(request.due_at) - now
    event = LATE if request.late(now) else LATE_SOON if left <= timedelta(days=row["days_before"]) else None
    key = (row["subscription_id"], request.request_id, event)
    is_there = "SELECT 1 FROM subscriptions WHERE subscription_id = ?"  # it may have been removed meanwhile
    if event not in json.loads(row["events"]) or not connection.execute(is_there, key[:1]).fetchone():
        return
    if connection.execute("INSERT OR IGNORE INTO warned VALUES (?, ?, ?)", key).rowcount:
        _put(
            connection, row["subscription_id"], request.request_id, str(event), now.astimezone(UTC).isoformat(timespec="seconds")
        )


# From deliveries to what arrived


def take(store: Store, kinds: Sequence[str], now: float, limit: int) -> list[Delivery]:
    """Deliveries whose turn it is: the oldest of each request and subscription. Nobody else takes them for `LEASE` seconds."""
    marks = ", ".join("?" * len(kinds))
    with store.transaction() as connection:
        rows = connection.execute(
            "SELECT number, delivery_id, subscription_id, kind, target, secret, deliveries.request_id, event, at, attempts "  # noqa: S608
            "FROM deliveries JOIN subscriptions USING (subscription_id) WHERE number IN "
            "(SELECT MIN(number) FROM deliveries GROUP BY subscription_id, deliveries.request_id) "
            f"AND kind IN ({marks}) AND (not_before <= ? OR not_before > ?) ORDER BY not_before, number LIMIT ?",
            (*kinds, now, now + LONGEST + LEASE, limit),  # further ahead than any try: another clock set it
        ).fetchall()
        for row in rows:
            connection.execute("UPDATE deliveries SET not_before = ? WHERE number = ?", (now + LEASE, row["number"]))
    return [Delivery(*row) for row in rows]


def arrived(store: Store, delivery: Delivery) -> None:
    """Take it off the list; with the last status of a request the callback's address goes too."""
    with store.transaction() as connection:
        connection.execute("DELETE FROM deliveries WHERE number = ?", (delivery.number,))
        if delivery.kind == CALLBACK and delivery.event in LAST:
            connection.execute("DELETE FROM subscriptions WHERE subscription_id = ?", (delivery.subscription_id,))


def failed(store: Store, delivery: Delivery, problem: str, now: float) -> float | None:
    """Count a try that failed; returns the s until the next one, or None if that was the last.

    Args: problem: one line without an address. What is given up is counted; a callback then ends, and its address goes.
    """
    tries = delivery.attempts + 1
    with store.transaction() as connection:
        if tries < ATTEMPTS:
            wait = float(min(2**tries, LONGEST))
            connection.execute(
                "UPDATE deliveries SET attempts = ?, not_before = ?, problem = ? WHERE number = ?",
                (tries, now + wait, problem, delivery.number),
            )
            return wait
        counted = "given_up = given_up + 1"
        key = (delivery.subscription_id,)
        connection.execute("DELETE FROM deliveries WHERE number = ?", (delivery.number,))
        if delivery.kind == CALLBACK:
            connection.execute("DELETE FROM deliveries WHERE subscription_id = ?", key)
            ended = f"UPDATE subscriptions SET kind = '{ENDED}', target = '', {counted} WHERE subscription_id = ?"  # noqa: S608
            connection.execute(ended, key)
        else:
            connection.execute(f"UPDATE subscriptions SET {counted} WHERE subscription_id = ?", key)  # noqa: S608
    return None


def outlook(store: Store) -> tuple[int, int]:
    """How many deliveries had a try that failed and wait for the next, and how many were given up."""
    with store.transaction() as connection:
        waiting = connection.execute("SELECT COUNT(*) FROM deliveries WHERE attempts > 0").fetchone()[0]
        given_up = connection.execute("SELECT COALESCE(SUM(given_up), 0) FROM subscriptions").fetchone()[0]
    return int(waiting), int(given_up)
