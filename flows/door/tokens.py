"""Tokens: who may do what at the door. A token is shown once; what is kept of it is an HMAC under a salt of its own.

    lmeraser_ID_SECRET      ID: 8 hex digits, by which it is listed and revoked; SECRET: 256 random bits

The secret is random, so one HMAC-SHA-256 is enough: nobody can try 2^256 of them, and a slow hash is for words that people
choose. Several tokens may have one client's name: that is how a token is replaced. Requests belong to the client, not to the
token.
"""

import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from flows.door.store import Store
from lmeraser.core.errors import BadInputError

SUBMIT, READ, APPROVE, AUDIT = "submit", "read", "approve", "audit"
SCOPES = {
    SUBMIT: "send requests; with read, correct records, and end requests that are pending or in their grace",
    READ: "see the client's own requests and their certificates, and name callbacks",
    APPROVE: "decide about any request: accept or decline what is proposed or waits for approval, hold, release, extend",
    AUDIT: "see every request, every certificate, what is proposed and the ledger's head; ask whether somebody is in the model",
}
CLIENT = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,38}[a-z0-9])?")
TOKEN = re.compile(r"lmeraser_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
MOST_DAYS = 3650
FAILURES, WINDOW = 10, 60.0  # failed tries of one address that are answered, in so many s
ADDRESSES = 4096  # that are remembered


@dataclass(frozen=True)
class Client:
    """Who a token stands for. Attributes: scopes: of that token."""

    name: str
    scopes: frozenset[str]


def now_text(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="seconds")


def _digest(salt: bytes, secret: str) -> bytes:
    return hmac.digest(salt, secret.encode(), "sha256")


def check_client(name: str) -> str:
    """Raises: BadInputError."""
    if not CLIENT.fullmatch(name):
        raise BadInputError("--name is not a client's name; expected 1 to 40 small letters, digits, dots or hyphens: `acme-crm`")
    return name


def create(store: Store, client: str, scopes: Iterable[str], days: int, now: datetime) -> tuple[str, str]:
    """A new token: its id, and the token itself, which is kept nowhere. Raises: BadInputError."""
    check_client(client)
    wanted = sorted(set(scopes))
    if not wanted or not SCOPES.keys() >= set(wanted):
        raise BadInputError(f"--scope is missing or unknown; expected one or more of {', '.join(SCOPES)}")
    if not 1 <= days <= MOST_DAYS:
        raise BadInputError(f"--days is {days}, expected 1 to {MOST_DAYS}")
    token_id, secret, salt = secrets.token_hex(4), secrets.token_urlsafe(32), secrets.token_bytes(32)
    times = now_text(now), now_text(now + timedelta(days=days))
    with store.transaction() as connection:
        values = (token_id, client, " ".join(wanted), salt, _digest(salt, secret), *times)
        connection.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, NULL)", values)
    return token_id, f"lmeraser_{token_id}_{secret}"


def listed(store: Store, now: datetime) -> list[dict[str, Any]]:
    """Every token without its secret, oldest first."""
    columns = "token_id, client, scopes, created_at, expires_at, revoked_at"
    with store.transaction() as connection:
        rows = connection.execute(f"SELECT {columns} FROM tokens ORDER BY created_at, token_id").fetchall()  # noqa: S608
    return [dict(row) | {"scopes": row["scopes"].split(), "valid": _is_valid(row, now)} for row in rows]


def revoke(store: Store, token_id: str, now: datetime) -> str:
    """End a token for good, at once; returns its client. Raises: BadInputError if there is none with this id."""
    with store.transaction() as connection:
        row = connection.execute("SELECT client FROM tokens WHERE token_id = ?", (token_id,)).fetchone()
        if row is None:
            raise BadInputError("no token has this id; `lmeraser token list` shows the ids (8 hex digits)")
        connection.execute("UPDATE tokens SET revoked_at = COALESCE(revoked_at, ?) WHERE token_id = ?", (now_text(now), token_id))
        return str(row["client"])


def authenticate(store: Store, token: str, now: datetime) -> Client | None:
    """The client of a token; None if it is unknown, expired or revoked: who asks cannot tell which."""
    parts = TOKEN.fullmatch(token)
    if parts is None:
        return None
    token_id, secret = parts.groups()
    with store.transaction() as connection:
        row = connection.execute("SELECT * FROM tokens WHERE token_id = ?", (token_id,)).fetchone()
    salt, digest = (row["salt"], row["digest"]) if row else (b"\0" * 32, b"\0" * 32)
    same = hmac.compare_digest(_digest(salt, secret), digest)
    if not (same and row and _is_valid(row, now)):
        return None
    return Client(row["client"], frozenset(row["scopes"].split()))


def _is_valid(row: Any, now: datetime) -> bool:
    return row["revoked_at"] is None and now < datetime.fromisoformat(row["expires_at"])


class Failures:
    """How often an address failed to show a valid token of late. A valid token is never refused: others may share its address."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def add(self, address: str) -> float | None:
        """Count a failure; returns the s to wait if there were too many."""
        now = self._clock()
        began, count = self._seen.pop(address, (now, 0))
        if not 0 <= now - began < WINDOW:
            began, count = now, 0
        self._seen[address] = began, count + 1
        while len(self._seen) > ADDRESSES:
            self._seen.popitem(last=False)
        return began + WINDOW - now if count >= FAILURES else None
