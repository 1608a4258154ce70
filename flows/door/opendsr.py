"""OpenDSR 2.0 (github.com/opengdpr/OpenDSR, specification.md): what comes in, and what goes out. Pure: no ledger, no clock, no
HTTP.

Of the protocol's requests the door takes erasures, of its identities `controller_customer_id` in the format `raw`: that is a
subject as the manifest spells it. One request is about one person. Everything else is refused, by a line that names fields and
never a value.
"""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from flows.door.bodies import A_UUID, UUID, RequestId, Strict, read_body
from lmeraser.core.errors import RequestError
from lmeraser.erase.requests import Request
from lmeraser.erase.states import CERTIFIED, PROPOSED, status

API_VERSION = "2.0"
SUBJECT_ID, RAW = "controller_customer_id", "raw"
ERASURE = "erasure"
MAX_BODY = 64 * 1024  # bytes; one person, a few callbacks
MOST_CALLBACKS = 5
AHEAD, BEHIND = timedelta(days=1), timedelta(days=3653)  # of submitted_time: two clocks differ, and one may go backwards
RFC3339 = r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$"
OPERATOR = "operator"  # whose the requests are that did not come through the door


class Identity(Strict):
    """Who shall be forgotten."""

    identity_type: Literal["controller_customer_id"]
    identity_value: Annotated[str, Field(min_length=1, max_length=1024)]
    identity_format: Literal["raw"]


class DataSubjectRequest(Strict):
    """An OpenDSR 2.0 request. `extensions` is accepted and dropped unread."""

    regulation: Literal["gdpr", "ccpa"]
    subject_request_id: RequestId
    subject_request_type: Literal["erasure"]
    subject_identities: Annotated[list[Identity], Field(min_length=1, max_length=1)]
    submitted_time: Annotated[str, Field(pattern=RFC3339, max_length=40)]
    api_version: Literal["2.0", "2"] | None = None
    status_callback_urls: Annotated[list[Annotated[str, Field(min_length=1, max_length=2000)]], Field(max_length=5)] | None = None
    extensions: dict[str, Any] | None = None


EXPECTED = {
    "regulation": "gdpr or ccpa",
    "subject_request_id": A_UUID,
    "subject_request_type": "erasure, the only type that this processor supports",
    "subject_identities": "a list with one identity; send one request for each person",
    "identity_type": f"{SUBJECT_ID}, the only identity that this processor knows",
    "identity_value": "the person's id as text, 1 to 1024 characters",
    "identity_format": f"{RAW}: a hash cannot be matched",
    "submitted_time": "an RFC 3339 time with its offset, as 2026-01-31T12:00:00Z",
    "api_version": f"{API_VERSION}, or nothing",
    "status_callback_urls": f"a list of at most {MOST_CALLBACKS} addresses",
    "extensions": "an object",
}


@dataclass(frozen=True)
class Erasure:
    """What the door takes from a request. Attributes: subject: in clear, in memory only."""

    request_id: str
    subject: str
    callbacks: tuple[str, ...]


def read_request(body: bytes, now: datetime) -> Erasure:
    """Read the body of `POST /requests`. Raises: RequestError naming the field and what was expected, and no value."""
    read = read_body(body, DataSubjectRequest, EXPECTED, "an OpenDSR 2.0 request")
    _check_time(read.submitted_time, now)
    callbacks = tuple(dict.fromkeys(read.status_callback_urls or ()))
    return Erasure(read.subject_request_id.lower(), read.subject_identities[0].identity_value, callbacks)


def _check_time(text: str, now: datetime) -> None:
    try:
        submitted = datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise RequestError(f"submitted_time is not valid; expected {EXPECTED['submitted_time']}") from error
    if submitted > now + AHEAD:
        raise RequestError("submitted_time lies more than a day in the future; check your clock")
    if submitted < now - BEHIND:
        raise RequestError("submitted_time lies more than ten years back; expected when the person asked")


def check_id(text: str) -> str:
    """The canonical form of a request's id in a path. Raises: RequestError."""
    if not UUID.fullmatch(text):
        raise RequestError(f"the request's id is not valid; expected {EXPECTED['subject_request_id']}")
    return text.lower()


# What goes out. Times are RFC 3339, UTC.


class SupportedIdentity(BaseModel):
    identity_type: str
    identity_format: str


class Discovery(BaseModel):
    api_version: str
    supported_identities: list[SupportedIdentity]
    supported_subject_request_types: list[str]
    processor_certificate: str


class Received(BaseModel):
    controller_id: str
    expected_completion_time: str
    received_time: str
    encoded_request: str
    subject_request_id: str
    api_version: str


class Acknowledged(BaseModel):
    """To a request that is not OpenDSR's: as the protocol acknowledges its own, without the body."""

    controller_id: str
    expected_completion_time: str
    received_time: str
    subject_request_id: str


class RequestStatus(BaseModel):
    controller_id: str
    expected_completion_time: str
    received_time: str
    subject_request_id: str
    request_status: Literal["pending", "in_progress", "completed", "cancelled"]
    api_version: str
    results_url: str | None = None
    extensions: dict[str, dict[str, str | None]]


class Cancelled(BaseModel):
    controller_id: str
    received_time: str
    subject_request_id: str
    api_version: str


class Problem(BaseModel):
    code: int
    message: str


class ErrorAnswer(BaseModel):
    error: Problem


def discovery(base_url: str) -> dict[str, Any]:
    return {
        "api_version": API_VERSION,
        "supported_identities": [{"identity_type": SUBJECT_ID, "identity_format": RAW}],
        "supported_subject_request_types": [ERASURE],
        "processor_certificate": f"{base_url}/certificate.pem",
    }


def received(request: Request, controller: str, body: bytes) -> dict[str, Any]:
    """The answer to a request that is in the ledger: the same to the same request. It does not tell whether anybody is known."""
    return {
        "controller_id": controller,
        "expected_completion_time": request.due_at,
        "received_time": request.received_at,
        "encoded_request": base64.b64encode(body).decode(),  # required; it goes to who sent it, and nowhere else
        "subject_request_id": request.request_id,
        "api_version": API_VERSION,
    }


def acknowledged(request: Request, controller: str) -> dict[str, Any]:
    """As `received`, to a request of another kind."""
    return {
        "controller_id": controller,
        "expected_completion_time": request.due_at,
        "received_time": request.received_at,
        "subject_request_id": request.request_id,
    }


def proposal(request: Request, cause: str) -> dict[str, Any]:
    """One of what is proposed. Args: cause: why, one of `ledger_proposals.WHY`."""
    return {
        "subject_request_id": request.request_id,
        "proposed_for": cause,
        "received_time": request.received_at,
        "expected_completion_time": request.due_at,
        "waits_until": _waits_until(request),
    }


def _waits_until(request: Request) -> str | None:
    """Of one in its grace or proposed: from when on it is carried out, or accepted by itself."""
    if request.ready_at is None or request.batch_id is not None or request.state not in (PROPOSED, "quarantined"):
        return None
    return datetime.fromtimestamp(request.ready_at, UTC).isoformat(timespec="seconds")


def results_url(base_url: str, request_id: str) -> str:
    return f"{base_url}/requests/{request_id}/certificate"


def request_status(request: Request, controller: str, domain: str, base_url: str) -> dict[str, Any]:
    """Where a request stands. What the protocol has no field for is under our domain in `extensions`."""
    made: dict[str, Any] = {
        "controller_id": controller,
        "expected_completion_time": request.due_at,
        "received_time": request.received_at,
        "subject_request_id": request.request_id,
        "request_status": status(request.state),
        "api_version": API_VERSION,
        "extensions": {domain: {"state": request.state, "reason": request.reason, "waits_until": _waits_until(request)}},
    }
    return made | ({"results_url": results_url(base_url, request.request_id)} if request.state == CERTIFIED else {})


def cancelled(request: Request, controller: str, now: datetime) -> dict[str, Any]:
    return {
        "controller_id": controller,
        "received_time": now.astimezone(UTC).isoformat(timespec="seconds"),
        "subject_request_id": request.request_id,
        "api_version": API_VERSION,
    }


def callback(request: Request, controller: str, told: str, url: str, base_url: str) -> dict[str, Any]:
    """The body of a callback. Args: told: the status that the request came to; url: the callback's own address."""
    made = {
        "controller_id": controller,
        "expected_completion_time": request.due_at,
        "status_callback_url": url,
        "subject_request_id": request.request_id,
        "request_status": told,
        "api_version": API_VERSION,
    }
    return made | ({"results_url": results_url(base_url, request.request_id)} if told == "completed" else {})


def problem(code: int, message: str) -> dict[str, Any]:
    """The protocol's error object."""
    return {"error": {"code": code, "message": message}}
