"""Requests as the ledger keeps them, and how one comes in. Subjects are pseudonyms (HMAC) from the start."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lmeraser.core.errors import RequestError
from lmeraser.core.strict_json import strict_json
from lmeraser.erase.erased import corrections_among
from lmeraser.erase.states import BLOCKED, FINAL, HOLD, PROPOSED

ERASURE, RECTIFIED = "erasure", "rectified"  # types of requests
MAX_BODY = 64 * 2**20  # bytes
MAX_SUBJECTS = 10_000  # in one request


@dataclass(frozen=True)
class Request:
    """Attributes:
    received_at, due_at: ISO 8601, UTC, seconds. state, reached: of `states`; a failed request goes on from `reached`.
    pseudonyms: of the subjects, sorted. batch_id: of the requests that share its retraining.
    attempts: tries that failed; seconds: spent on it, timings: by step; problem: the last failure in one line.
    reason: why it is rejected or blocked; claim_id, lease_until: who works on it (seconds since 1970).
    ready_at: when its grace is over (seconds since 1970), None: it had none; of a proposal: when it is accepted by itself, None:
        never. blocked_by: `states.HOLD` while it is on hold.
    """

    request_id: str
    received_at: str
    due_at: str
    state: str
    reached: str
    pseudonyms: tuple[str, ...]
    include_public: bool
    batch_id: str | None
    attempts: int
    seconds: float
    timings: dict[str, float]
    problem: str | None
    certificate: str | None
    reason: str | None
    claim_id: str | None
    lease_until: float | None
    ready_at: float | None = None
    blocked_by: str | None = None

    @property
    def type(self) -> str:
        """What is asked for: `rectified` where every record stays, with another label or subject; else `erasure`."""
        return RECTIFIED if self.pseudonyms and len(corrections_among(self.pseudonyms)) == len(self.pseudonyms) else ERASURE

    @property
    def is_held(self) -> bool:
        """Whether it is in effect and a hold keeps it from being carried out."""
        return self.state == BLOCKED and self.blocked_by == HOLD

    @property
    def is_open(self) -> bool:
        return self.is_held or self.state not in (*FINAL, BLOCKED, PROPOSED)

    def in_grace(self, now: float) -> bool:
        """Whether it is in effect and may still be withdrawn. Args: now: seconds since 1970."""
        return self.state == "quarantined" and self.batch_id is None and self.ready_at is not None and now < self.ready_at

    def is_paused(self, now: float) -> bool:
        """Whether it is in effect and nobody is to carry it out yet. Args: now: seconds since 1970."""
        return self.is_held or self.in_grace(now)

    def late(self, now: datetime) -> bool:
        """Whether it is past its due date and not finished."""
        return self.state not in FINAL and datetime.fromisoformat(self.due_at) < now


@dataclass(frozen=True)
class Restored:
    """A certified request as its certificate tells of it. Attributes: certificate: the file's path in the project."""

    request_id: str
    received_at: str
    pseudonyms: tuple[str, ...]
    include_public: bool
    certificate: str


@dataclass(frozen=True)
class Event:
    """A request as a controller sends it; everything else in the message is dropped."""

    request_id: str
    subjects: tuple[str, ...]
    include_public: bool


def check_request_id(text: str | None) -> str:
    """The canonical form of a UUID, or a fresh one. Raises: RequestError if it is none."""
    if text is None:
        return str(uuid.uuid4())
    try:
        return str(uuid.UUID(text))
    except (ValueError, AttributeError, TypeError) as error:
        raise RequestError("the request id is not a valid UUID (8-4-4-4-12 hex digits); correct it, or leave it out") from error


def _parse(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BODY:
        raise RequestError(f"event: {len(data)} bytes, expected at most {MAX_BODY}; split the request")
    try:
        raw = strict_json(data)
    except ValueError as error:
        raise RequestError("event: not valid JSON (UTF-8, each field once); expected an OpenDSR 2.0 request") from error
    if not isinstance(raw, dict):
        raise RequestError("event: not a JSON object; expected an OpenDSR 2.0 request")
    return raw


def _identities(listed: Any) -> Iterable[str]:
    for place, entry in enumerate(listed, start=1):
        where = f"event: subject_identities, entry {place} of {len(listed)}"
        if not isinstance(entry, dict) or not isinstance(entry.get("identity_value"), str):
            raise RequestError(f"{where}: expected an object whose identity_value is a string")
        if entry.get("identity_format", "raw") != "raw":
            raise RequestError(f"{where}: expected identity_format raw; a hash cannot be matched to the manifest's names")
        yield entry["identity_value"]


def read_event(data: bytes) -> Event:
    """Read a deletion request: OpenDSR 2.0 (`subject_request_id`, `subject_request_type` erasure, `subject_identities`), or
    short: `request_id`, `subjects`. Takes what it needs and drops the rest, which may be personal, unread.

    Raises: RequestError naming the field, and no value.
    """
    raw = _parse(data)
    short = "subject_request_id" not in raw and "request_id" in raw
    name, field = ("request_id", "subjects") if short else ("subject_request_id", "subject_identities")
    identity, listed = raw.get(name), raw.get(field)
    if not isinstance(identity, str):
        raise RequestError(f"event: {name} is missing or not a string; expected a UUID")
    request_id = check_request_id(identity)
    if not short and raw.get("subject_request_type") != "erasure":
        raise RequestError("event: subject_request_type is missing or not supported; expected erasure")
    if not isinstance(listed, list) or not listed:
        raise RequestError(f"event: {field} is missing or empty; expected a list of subjects")
    if len(listed) > MAX_SUBJECTS:
        raise RequestError(f"event: {len(listed)} subjects, expected at most {MAX_SUBJECTS} in one request; split it")
    if short and not all(isinstance(subject, str) for subject in listed):
        raise RequestError("event: subjects holds an element that is not a string; name each person as the manifest does")
    subjects = tuple(listed) if short else tuple(_identities(listed))
    accepted = raw.get("include_public", False)
    if not isinstance(accepted, bool):
        raise RequestError("event: include_public is not a boolean; expected true or false")
    return Event(request_id, subjects, accepted)
