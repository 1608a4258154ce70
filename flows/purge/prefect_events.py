"""What clients put into Prefect beyond a request's id. Prefect stores an event as it was sent, and nothing of it is needed.

A server keeps events for days in `prefect.db` and, where it could not take one, in `dlq`. People never go through Prefect, but
whoever has its password may write a name into an event. Such an event is deleted: `sweep` does it every minute, a purge before
it scans. A server that keeps its data elsewhere (PostgreSQL, another machine) is out of reach.
"""

import json
import os
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from lmeraser.core.errors import RequestError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.erase.requests import check_request_id

BUSY = 10  # s to wait for the server
EVENT = "lmeraser.deletion.requested"  # an event of ours, by its name and by the id of its resource
RESOURCE = "lmeraser.request."


def prefect_home() -> Path:
    """Where Prefect keeps its files, as it decides itself."""
    return Path(os.environ.get("PREFECT_HOME") or Path("~/.prefect").expanduser())


def _is_id(text: object) -> bool:
    try:
        return isinstance(text, str) and check_request_id(text) == text.lower()
    except RequestError:
        return False


def holds_more(event: Mapping[str, object]) -> bool:
    """Whether one of our events holds anything but a request's id."""
    payload, resource = event.get("payload"), event.get("resource")
    if not isinstance(payload, dict) or not isinstance(resource, dict) or event.get("related"):
        return True
    named = str(resource.get("prefect.resource.id", ""))
    whole = payload.keys() == {"request_id"} and _is_id(payload["request_id"])
    return not (whole and resource.keys() == {"prefect.resource.id"} and _is_id(named.removeprefix(RESOURCE)))


def _ours(name: str, resource: str, related: str, payload: str) -> Mapping[str, object] | None:
    """Our event that a row of Prefect's table holds, or tells of; None if there is none."""
    body = json.loads(payload)
    event: Mapping[str, object] = {
        "event": name,
        "resource": json.loads(resource),
        "related": json.loads(related),
        "payload": body,
    }
    if isinstance(body, dict) and "triggering_event" in body:
        event = body["triggering_event"] or {}
    return event if event.get("event") == EVENT else None


def _clear_database(path: Path) -> int:
    """Delete our events that hold more than an id from a server's SQLite file. Raises: sqlite3.Error."""
    with closing(sqlite3.connect(path, timeout=BUSY)) as connection:
        connection.isolation_level = None
        connection.execute("PRAGMA secure_delete = ON")
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchone():
            return 0
        wanted = "SELECT id, event, resource, related, payload FROM events WHERE event = ? OR payload LIKE ?"
        rows = connection.execute(wanted, (EVENT, f'%"{EVENT}"%')).fetchall()
        condemned = [row_id for row_id, *columns in rows if (event := _ours(*columns)) is not None and holds_more(event)]
        if condemned:
            connection.execute("BEGIN IMMEDIATE")
            for row_id in condemned:
                connection.execute("DELETE FROM event_resources WHERE event_id = ?", (row_id,))
                connection.execute("DELETE FROM events WHERE id = ?", (row_id,))
            connection.execute("COMMIT")
        _truncate(connection)
        return len(condemned)


def _truncate(connection: sqlite3.Connection) -> None:
    """Empty the write-ahead log, which keeps what was deleted: also where an earlier try could not. Raises: sqlite3.Error."""
    deadline = time.monotonic() + BUSY
    # Never waiting with the writers' lock in hand, which would hold up the server. Busy, SQLite says so in a row.
    connection.execute("PRAGMA busy_timeout = 0")
    while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > deadline:
            raise sqlite3.OperationalError("its log is in use")
        time.sleep(0.05)


def clear(layout: Layout) -> int:
    """Delete what clients put into Prefect beyond ids; returns how many events. Raises: StepFailedError."""
    deleted = 0
    for home in sorted({prefect_home(), layout.private_state / "prefect"}):
        for letter in (home / "dlq").glob("*"):  # events that the server could not take: nobody reads them again
            if letter.is_file() and EVENT.encode() in letter.read_bytes():
                letter.unlink(missing_ok=True)
                deleted += 1
        database = home / "prefect.db"
        try:
            deleted += _clear_database(database) if database.is_file() else 0
        except (sqlite3.Error, ValueError) as error:
            raise StepFailedError(
                f"prefect: its database cannot be cleared ({type(error).__name__}); the request stays open: `lmeraser resume`"
            ) from error
    return deleted
