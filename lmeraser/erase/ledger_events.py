"""Events of the ledger: each holds the digest of the one before it, so that none can be changed, left out or put in unnoticed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmeraser.core.digest import canonical_json, sha256
from lmeraser.core.errors import VerificationError

GENESIS = "0" * 64  # what the first event names as the one before it


@dataclass(frozen=True)
class LedgerEvent:
    """Attributes: seq: 1 for the first; at: ISO 8601, UTC, seconds; previous, digest: of the event before, and its own."""

    seq: int
    request_id: str | None
    at: str
    kind: str
    data: dict[str, Any]
    previous: str
    digest: str


def event_digest(seq: int, request_id: str | None, at: str, kind: str, data: Any, previous: str) -> str:
    """SHA-256 of all that an event says, and of the digest of the one before."""
    event = {"seq": seq, "request_id": request_id, "at": at, "kind": kind, "data": data, "previous": previous}
    return sha256(canonical_json(event))


def check_events(events: Sequence[LedgerEvent]) -> None:
    """Raise VerificationError, naming the first broken event, unless each fits its digest and the event before it."""
    previous = GENESIS
    for place, event in enumerate(events, start=1):
        whole = event_digest(event.seq, event.request_id, event.at, event.kind, event.data, event.previous)
        if (event.seq, event.previous, event.digest) != (place, previous, whole):
            raise VerificationError(
                f"event {place} of the ledger does not fit its digest or the event before it; restore the ledger from your backup"
            )
        previous = event.digest
