"""The door's own database, `.lmeraser/door.db`: SQLite, mode 0600, outside git. What is deleted from it is overwritten.

It holds tokens by their HMAC, which client a request's id belongs to, and what is still to be told to whom. No name of a
person: a callback's address with one in it is refused, and addresses go when everything was told.
"""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from lmeraser.core.errors import LmeraserError, ProjectError, StepFailedError
from lmeraser.core.layout import Layout

SCHEMA = 1
BUSY = 10  # s to wait for another writer
TABLES = """
CREATE TABLE tokens (
    token_id TEXT PRIMARY KEY, client TEXT NOT NULL, scopes TEXT NOT NULL, salt BLOB NOT NULL, digest BLOB NOT NULL,
    created_at TEXT NOT NULL, expires_at TEXT NOT NULL, revoked_at TEXT
);
CREATE TABLE owners (request_id TEXT PRIMARY KEY, client TEXT NOT NULL);
CREATE TABLE subscriptions (
    subscription_id TEXT PRIMARY KEY, kind TEXT NOT NULL, target TEXT NOT NULL, secret TEXT NOT NULL, events TEXT NOT NULL,
    days_before INTEGER NOT NULL, request_id TEXT, cursor INTEGER NOT NULL, status TEXT NOT NULL,
    given_up INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE deliveries (
    number INTEGER PRIMARY KEY AUTOINCREMENT, delivery_id TEXT UNIQUE NOT NULL,
    subscription_id TEXT NOT NULL REFERENCES subscriptions ON DELETE CASCADE, request_id TEXT NOT NULL, event TEXT NOT NULL,
    at TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, not_before REAL NOT NULL DEFAULT 0, problem TEXT
);
CREATE TABLE warned (
    subscription_id TEXT NOT NULL REFERENCES subscriptions ON DELETE CASCADE, request_id TEXT NOT NULL, event TEXT NOT NULL,
    PRIMARY KEY (subscription_id, request_id, event)
);
"""


def path_of(layout: Layout) -> Path:
    return layout.private_state / "door.db"


class Store:
    """Every use is one transaction. Made on first use; `exists` asks without making it."""

    def __init__(self, layout: Layout) -> None:
        self.path = path_of(layout)

    @property
    def exists(self) -> bool:
        return self.path.exists()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction, committed to the disk at the end. Our own errors roll back and pass through.

        Raises: ProjectError if the file is damaged, newer, or readable by others; StepFailedError if it cannot be written.
        """
        try:
            self._prepare()
            with closing(sqlite3.connect(self.path, timeout=BUSY, isolation_level=None)) as connection:
                connection.row_factory = sqlite3.Row
                for pragma in ("synchronous = FULL", "secure_delete = ON", "foreign_keys = ON"):
                    connection.execute(f"PRAGMA {pragma}")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    _require_schema(connection)
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
        except LmeraserError:
            raise
        except sqlite3.Error as error:
            raise _explain(str(error).lower()) from None

    def _prepare(self) -> None:
        if not self.path.exists():
            self.path.parent.mkdir(exist_ok=True, mode=0o700)
            os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
        mode = stat.S_IMODE(self.path.stat().st_mode)
        if mode & 0o077:
            raise ProjectError(f"the door's {self.path.name} has mode {mode:04o}, expected 0600; run `chmod 600` on it")


def _require_schema(connection: sqlite3.Connection) -> None:
    """Make the tables of an empty file. Raises: ProjectError for those of a newer lmeraser."""
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == 0:
        for statement in filter(str.strip, TABLES.split(";")):  # `executescript` would commit what was begun
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
    elif found != SCHEMA:
        raise ProjectError(f"door.db was made by a newer lmeraser (schema {found}, this one knows {SCHEMA}); update lmeraser")


def _explain(reason: str) -> LmeraserError:
    if "malformed" in reason or "not a database" in reason:
        return ProjectError("door.db is damaged; restore it from your backup, or delete it and create tokens and hooks again")
    if "locked" in reason:
        return StepFailedError(f"door.db was busy for {BUSY} s; retry")
    if "full" in reason or "i/o" in reason:
        return StepFailedError("door.db cannot be written: the disk is full or failing; free some space and retry")
    return StepFailedError("door.db cannot be read or written; check the permissions of .lmeraser and retry")
