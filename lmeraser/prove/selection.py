"""Which erasures are rebuilt at once, chosen so that nobody chooses: by HMAC of the request's id and the audit key.

A certified request is chosen if HMAC-SHA-256 (RFC 2104) of its id, read as a number, is a multiple of `share`. The key is
committed to: each certificate, and each event "certified" of the ledger, tells its SHA-256 and the share. So whoever has the
events and the key can repeat the choice, and see of each chosen request whether it was rebuilt, and with what result.

What it does not show: an operator who makes request ids up can make up ones that are not chosen; ids that come from elsewhere
cannot be.
"""

import hmac
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from lmeraser.core.errors import BadInputError
from lmeraser.erase.ledger_events import LedgerEvent
from lmeraser.erase.states import CERTIFIED
from lmeraser.prove.turns import KEY_BYTES, load_or_create_audit_key

REBUILT = "erasure rebuilt"  # the event: whether the artifacts were equal, and how many there were


@dataclass(frozen=True)
class AuditKey:
    """The secret that chooses. Never printed or logged; its id is public. (It draws turns of files too: `turns.py`.)"""

    secret: bytes = field(repr=False)

    @classmethod
    def load_or_create(cls, path: Path) -> "AuditKey":
        """The project's own. Raises: ProjectError if it is damaged, or readable by others."""
        return cls(load_or_create_audit_key(path))

    @classmethod
    def read(cls, path: Path) -> "AuditKey":
        """A copy that somebody else keeps. Raises: BadInputError without the file's name, which may be anything."""
        try:
            secret = path.read_bytes()
        except OSError as error:
            raise BadInputError(
                f"the audit key that --key names cannot be read ({error.strerror}); name a copy of audit.key"
            ) from error
        if len(secret) != KEY_BYTES:
            raise BadInputError(
                f"the audit key that --key names has {len(secret)} bytes, expected {KEY_BYTES}; name a copy of audit.key"
            )
        return cls(secret)

    @property
    def id(self) -> str:
        """SHA-256 of the key, 64 hex digits: what certificates commit to."""
        return sha256(self.secret).hexdigest()

    def chooses(self, request_id: str, share: int) -> bool:
        """Args: share: one of so many; 0: none."""
        if not share:
            return False
        drawn = hmac.digest(self.secret, request_id.encode(), "sha256")
        return int.from_bytes(drawn, "big") % share == 0


@dataclass(frozen=True)
class Selection:
    """What events and keys tell of the requests that were certified.

    Attributes:
        certified: how many events tell a key and a share; older ones do not, and count in `without`.
        shares: how many of them were certified under each share, in the order in which it changed first.
        keys: ids of the audit keys, in the order of their use: more than one if the key was replaced.
        unjudged: how many were certified under a key that was not given, by its id.
        chosen: ids of the requests that had to be rebuilt; missing: those that were not; unequal: those whose last rebuild gave
            other artifacts.
    """

    certified: int
    without: int
    shares: dict[int, int]
    keys: tuple[str, ...]
    unjudged: dict[str, int]
    chosen: tuple[str, ...]
    missing: tuple[str, ...]
    unequal: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every request that had to be rebuilt was, with equal artifacts, and all could be judged."""
        return not (self.missing or self.unequal or self.unjudged)

    def to_json(self) -> dict[str, Any]:
        named = {name: list(getattr(self, name)) for name in ("chosen", "missing", "unequal", "keys")}
        shares = {str(share): count for share, count in self.shares.items()}
        counts = {"certified": self.certified, "without": self.without, "shares": shares, "unjudged": self.unjudged}
        return {"complete": self.complete, **counts, **named}


def selection_of(events: Sequence[LedgerEvent], keys: Sequence[AuditKey]) -> Selection:
    """Repeat the choice. Args: events: of the ledger, whose chain is whole; keys: the audit keys that are known."""
    known = {key.id: key for key in keys}
    signed = [event for event in events if event.kind == CERTIFIED and event.request_id]
    judged = [event for event in signed if "audit_key_id" in event.data]
    used = [str(event.data["audit_key_id"]) for event in judged]
    chosen = [
        str(event.request_id)
        for event, key in zip(judged, used, strict=True)
        if key in known and known[key].chooses(str(event.request_id), int(event.data["rebuild_share"]))
    ]
    results = {event.request_id: bool(event.data["equal"]) for event in events if event.kind == REBUILT}  # the last one counts
    return Selection(
        certified=len(judged),
        without=len(signed) - len(judged),
        shares=dict(Counter(int(event.data["rebuild_share"]) for event in judged)),
        keys=tuple(dict.fromkeys(used)),
        unjudged=dict(Counter(key for key in used if key not in known)),
        chosen=tuple(chosen),
        missing=tuple(request_id for request_id in chosen if request_id not in results),
        unequal=tuple(request_id for request_id in chosen if results.get(request_id) is False),
    )
