"""Where the ledger lies: its tables, its connection, and what its errors mean to a user.

SQLite by default: write-ahead log, `synchronous=FULL` (a commit survives a power cut), `secure_delete` (what is deleted is
overwritten), one writer at a time. PostgreSQL by URL: writers take one advisory lock, because the events form one chain.
"""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from lmeraser.core.errors import LmeraserError, ProjectError, StepFailedError

SCHEMA = 1
BUSY = 30  # s to wait for another writer
NO_SPACE = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_SHMMAP", "SQLITE_IOERR_SHMOPEN", "SQLITE_IOERR_WRITE")
UNWRITABLE = "the ledger cannot be written: the disk is full or failing; free some space and retry"
LOCK = 0x6C6D6572  # of PostgreSQL's advisory locks

metadata = sa.MetaData()
meta = sa.Table("meta", metadata, sa.Column("schema", sa.Integer, nullable=False))
requests = sa.Table(
    "requests",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),  # order of receipt, whatever the clock says
    sa.Column("request_id", sa.String(36), unique=True, nullable=False),
    sa.Column("received_at", sa.String(32), nullable=False),
    sa.Column("due_at", sa.String(32), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("reached", sa.String(16), nullable=False),
    sa.Column("pseudonyms", sa.Text, nullable=False),  # JSON
    sa.Column("include_public", sa.Boolean, nullable=False),
    sa.Column("batch_id", sa.String(36)),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("seconds", sa.Float, nullable=False, default=0.0),
    sa.Column("timings", sa.Text, nullable=False, default="{}"),  # JSON
    sa.Column("problem", sa.Text),
    sa.Column("certificate", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("claim_id", sa.String(36)),
    sa.Column("claim_owner", sa.Text),
    sa.Column("lease_until", sa.Float),
    sa.Column("lease_s", sa.Float),
    sa.Column("ready_at", sa.Float),  # seconds since 1970: carried out not before; of none, at once
    sa.Column("blocked_by", sa.String(16)),  # hold, or unset
)
batches = sa.Table(
    "batches",
    metadata,
    sa.Column("batch_id", sa.String(36), primary_key=True),
    sa.Column("opened_at", sa.String(32), nullable=False),
    sa.Column("plan", sa.Text, nullable=False),  # JSON, as are the next two
    sa.Column("before", sa.Text, nullable=False),
    sa.Column("facts", sa.Text, nullable=False),
)
events = sa.Table(
    "events",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("request_id", sa.String(36), index=True),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("data", sa.Text, nullable=False),  # JSON
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
)

# What people wrote: outside the chain of events, so that it can be deleted.
words = sa.Table(
    "words",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("request_id", sa.String(36), index=True, nullable=False),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)

# What must not be destroyed yet, by request or by person; the reason is people's words, and goes before the rest.
holds = sa.Table(
    "holds",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("request_id", sa.String(36)),
    sa.Column("pseudonym", sa.String(64)),
    sa.Column("until", sa.Float, nullable=False),  # seconds since 1970
    sa.Column("ended_at", sa.String(32)),
    sa.Column("reason", sa.Text),
)
NEWER = (requests.c.ready_at, requests.c.blocked_by)  # columns that older ledgers lack

APPEND_ONLY = {
    "sqlite": [
        f"CREATE TRIGGER events_no_{word} BEFORE {word} ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END"
        for word in ("update", "delete")
    ],
    "postgresql": [
        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'events are append-only'; END $$",
        "CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
    ],
}


def sqlite_url(path: Path) -> URL:
    """No text: a path may hold what means something else in a URL (`?`, `#`, `%`), and the ledger would lie elsewhere."""
    return URL.create("sqlite", database=str(path.absolute()))


def connect(url: str | URL) -> sa.Engine:
    """An engine whose ledger exists and has this schema; made if there is none.

    Raises: ProjectError for a newer schema, a damaged or public file, or a server that cannot be reached.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() not in APPEND_ONLY:
            raise ProjectError("the ledger's URL is neither SQLite nor PostgreSQL; expected postgresql+psycopg://…")
        file = Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None
        engine = _engine(parsed)  # before a file is made: the URL may name a driver that does not exist
        if file:
            _prepare_file(file)
    except (ArgumentError, NoSuchModuleError) as error:
        raise ProjectError("the ledger's URL is not valid; expected sqlite:///… or postgresql+psycopg://…") from error
    except ImportError as error:
        raise ProjectError("the ledger is on PostgreSQL, and psycopg is missing; pip install 'lmeraser[postgres]'") from error
    with transaction(engine) as connection:
        if not file:
            _create(connection)
        else:
            _add_newer(connection)
        schema = connection.execute(sa.select(meta.c.schema)).scalar_one_or_none()
    if schema != SCHEMA:
        raise ProjectError(f"the ledger was made by a newer lmeraser (schema {schema}, this one knows {SCHEMA}); update lmeraser")
    return engine


def _engine(url: URL) -> sa.Engine:
    engine = sa.create_engine(url, poolclass=NullPool, hide_parameters=True)
    if url.get_backend_name() == "sqlite":
        sa.event.listen(engine, "connect", _configure)
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    else:
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})"))
    return engine


def _configure(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # we say when a transaction begins
    for pragma in (f"busy_timeout = {BUSY * 1000}", "synchronous = FULL", "secure_delete = ON", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _create(connection: sa.Connection) -> None:
    if sa.inspect(connection).has_table("meta"):
        _add_newer(connection)
        return
    metadata.create_all(connection)
    for command in APPEND_ONLY[connection.dialect.name]:
        connection.execute(sa.text(command))
    connection.execute(meta.insert().values(schema=SCHEMA))


def _add_newer(connection: sa.Connection) -> None:
    """Bring a ledger of an older version up to this one: tables and columns are added, and none is changed."""
    for table in (words, holds):
        table.create(connection, checkfirst=True)
    there = {column["name"] for column in sa.inspect(connection).get_columns(requests.name)}
    for column in NEWER:
        if column.name not in there:
            kind = column.type.compile(connection.dialect)
            connection.execute(sa.text(f"ALTER TABLE {requests.name} ADD COLUMN {column.name} {kind}"))


def _prepare_file(path: Path) -> None:
    """Make the file if there is none, whole or not at all; refuse one that is damaged or that others can read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        draft = path.with_name(f"{path.name}.new-{os.getpid()}")
        try:
            os.close(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
            with _engine(sqlite_url(draft)).begin() as connection:
                _create(connection)
            with sqlite3.connect(draft) as plain:
                plain.execute("PRAGMA journal_mode = WAL")
            plain.close()
            with suppress(FileExistsError):  # another process was faster
                os.link(draft, path)
        finally:
            for name in (draft.name, f"{draft.name}-wal", f"{draft.name}-shm", f"{draft.name}-journal"):
                path.with_name(name).unlink(missing_ok=True)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ProjectError(f"the ledger {path.name} has mode {mode:04o}, expected 0600; run `chmod 600` on it")
    _refuse_damage(path)


def _refuse_damage(path: Path) -> None:
    """Raise ProjectError unless the file is a whole database; it is opened read-only, so nothing is overwritten."""
    try:
        verdict = None
        if path.stat().st_size:
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY)
            try:
                verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            finally:
                connection.close()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            raise StepFailedError(f"the ledger was busy for {BUSY} s; retry") from error
        if getattr(error, "sqlite_errorname", "") in NO_SPACE:  # reading needs room too, for the shared memory beside the log
            raise StepFailedError(UNWRITABLE) from error
        raise ProjectError(damaged(path.name)) from error
    if verdict != "ok":
        raise ProjectError(damaged(path.name))


def damaged(name: str = "ledger.db") -> str:
    return f"the ledger {name} is damaged; restore it from your backup: nothing was overwritten, and no request is carried out"


@contextmanager
def transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction whose failures are one clear line. Our own errors roll back and pass through."""
    try:
        with engine.begin() as connection:
            yield connection
    except LmeraserError:
        raise
    except DatabaseError as error:
        raise _explain(str(error.orig).lower(), engine) from None
    except SQLAlchemyError as error:
        raise StepFailedError(
            f"the ledger's database returned an error ({type(error).__name__}); retry, and report it if it happens again"
        ) from None


def _explain(reason: str, engine: sa.Engine) -> LmeraserError:
    if "malformed" in reason or "not a database" in reason:
        return ProjectError(damaged())
    if "locked" in reason:
        return StepFailedError(f"the ledger was busy for {BUSY} s; retry")
    if "full" in reason or "i/o" in reason:
        return StepFailedError(UNWRITABLE)
    if "readonly" in reason or "read-only" in reason or "unable to open" in reason:
        return StepFailedError("the ledger cannot be written: it is read-only here; check the permissions of .lmeraser")
    if engine.dialect.name == "postgresql" and ("connect" in reason or "closed" in reason or "terminat" in reason):
        return ProjectError("the ledger's PostgreSQL server cannot be reached; check LMERASER_LEDGER_URL and the server, retry")
    return StepFailedError("the ledger refused a change; nothing of it was stored: retry, and report this if it stays")
