"""The record of requests: one private JSON file each, so that the same request id twice has one effect.

A simple place that a durable ledger takes over later. Subjects are stored as pseudonyms (HMAC) only.
"""

import json
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lmeraser.core.digest import readable_json, write_whole
from lmeraser.core.errors import ProjectError, RequestError

STATES = ("received", "validated", "removed", "retrained", "verified")
FINAL = STATES[-1]


@dataclass(frozen=True)
class Request:
    """Attributes:
    pseudonyms: of the subjects; plan: as `Plan.to_json`; before: dvc.lock's outs when the request was validated.
    problem: the last failure in one line; the request stays open and can be resumed.
    source_rows: how many rows of the source were found to be the subjects'.
    """

    request_id: str
    received_at: str
    pseudonyms: tuple[str, ...]
    include_public: bool
    state: str = "received"
    plan: dict[str, Any] | None = None
    before: dict[str, str] | None = None
    seconds: float = 0.0
    problem: str | None = None
    receipt: str | None = None
    source_rows: int = 0

    @property
    def is_open(self) -> bool:
        return self.state != FINAL

    def reached(self, state: str) -> bool:
        return STATES.index(self.state) >= STATES.index(state)


def check_request_id(text: str | None) -> str:
    """The canonical form of a UUID, or a fresh one. Raises: RequestError if it is none."""
    if text is None:
        return str(uuid.uuid4())
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise RequestError("the request id is no UUID; expected 8-4-4-4-12 hex digits, or leave it out") from error


def new_request(request_id: str, pseudonyms: Iterable[str], include_public: bool) -> Request:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Request(request_id, now, tuple(sorted(set(pseudonyms))), include_public)


class RequestStore:
    """Requests as files of mode 0600 below the project's private folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, request_id: str) -> Path:
        return self.folder / f"{request_id}.json"

    def lock_copy(self, request_id: str) -> Path:
        """Where dvc.lock is kept while the request changes it."""
        return self.folder / f"{request_id}.lock"

    def find(self, request_id: str) -> Request | None:
        path = self._path(request_id)
        if not path.exists():
            return None
        try:
            raw = json.loads(path.read_bytes())
            found = Request(**(raw | {"pseudonyms": tuple(raw["pseudonyms"])}))
            whole = (
                found.request_id == request_id
                and found.state in STATES
                and isinstance(raw["pseudonyms"], list)
                and all(isinstance(getattr(found, name), dict | None) for name in ("plan", "before"))
            )
            if not whole:
                raise ValueError("not a request")
            return found
        except (ValueError, KeyError, TypeError) as error:
            raise ProjectError(f"the record of request {request_id} is damaged; restore .lmeraser/requests") from error

    def get(self, request_id: str) -> Request:
        found = self.find(request_id)
        if found is None:
            raise RequestError(f"request {request_id} is unknown here; `lmeraser status` lists the requests")
        return found

    def save(self, request: Request, **changes: Any) -> Request:
        """Store a request, changed; written whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        changed = replace(request, **changes)
        write_whole(self._path(changed.request_id), readable_json(asdict(changed)), mode=0o600)
        return changed

    def require_same(self, known: Request, pseudonyms: Iterable[str]) -> None:
        """Raise RequestError if a known request id comes with other subjects."""
        if tuple(sorted(set(pseudonyms))) != known.pseudonyms:
            raise RequestError(f"request {known.request_id} is about other subjects; use a new id for a new request")

    def all(self) -> list[Request]:
        """Every request, oldest first."""
        names = sorted(path.stem for path in self.folder.glob("*.json"))
        return sorted((self.get(name) for name in names), key=lambda request: (request.received_at, request.request_id))
