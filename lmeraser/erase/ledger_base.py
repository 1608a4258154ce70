"""What happens inside the ledger's transactions, which its parts share: rows of requests, and the chain of events."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from lmeraser.core.digest import canonical_json
from lmeraser.core.errors import RequestError
from lmeraser.erase.ledger_events import GENESIS, event_digest
from lmeraser.erase.ledger_schema import events, requests


def as_text(value: Any) -> str:
    return canonical_json(value).decode().strip()


class Transactions:
    """Attributes: clock: seconds since 1970. Methods that take a connection are part of the caller's transaction."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds")

    def _row(self, connection: sa.Connection, request_id: str) -> Any:
        return connection.execute(sa.select(requests).where(requests.c.request_id == request_id)).one_or_none()

    def _known(self, connection: sa.Connection, request_id: str) -> Any:
        row = self._row(connection, request_id)
        if row is None:
            raise RequestError(f"request {request_id} is unknown here; `lmeraser status` lists the requests")
        return row

    def _set(self, connection: sa.Connection, ids: Sequence[str], **values: Any) -> None:
        for start in range(0, len(ids), 500):  # SQLite's limit of variables
            chosen = requests.c.request_id.in_(list(ids[start : start + 500]))
            connection.execute(requests.update().where(chosen).values(**values))

    def _head(self, connection: sa.Connection) -> tuple[int, str]:
        row = connection.execute(sa.select(events.c.seq, events.c.digest).order_by(events.c.seq.desc()).limit(1)).one_or_none()
        return (row.seq, row.digest) if row else (0, GENESIS)

    def _append(self, connection: sa.Connection, request_id: str | None, kind: str, data: dict[str, Any]) -> None:
        self._append_all(connection, kind, [(request_id, data)])

    def _append_all(self, connection: sa.Connection, kind: str, told: Sequence[tuple[str | None, dict[str, Any]]]) -> None:
        """Append events of one kind, each of a request and what it says of it."""
        at, (seq, previous), rows = self._now(), self._head(connection), []
        for request_id, data in told:
            seq, before = seq + 1, previous
            previous = event_digest(seq, request_id, at, kind, data, before)
            row = {"seq": seq, "request_id": request_id, "at": at, "kind": kind, "data": as_text(data)}
            rows.append(row | {"previous": before, "digest": previous})
        if rows:
            connection.execute(events.insert(), rows)
