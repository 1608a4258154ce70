"""A door before a project, without a network: what a client sends, and what it is answered."""

import base64
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy.pool import NullPool
from starlette.testclient import TestClient

from flows.door import signing, tokens
from flows.door.asgi import make_door
from flows.door.guard import Door
from flows.project import Project
from lmeraser.erase import ledger_schema

HOST = "https://door.example"
Answer = Any  # what starlette's client gives: like httpx's
FIRST, SECOND = "5eed0000-0000-4000-8000-000000000001", "5eed0000-0000-4000-8000-000000000002"
PUBLIC, PRIVATE = "93.184.215.14", "10.0.0.7"  # addresses of names that begin with `public` or `private`


async def resolve(host: str, _: int) -> list[str]:
    """A name service of our own."""
    if host.startswith("public"):
        return [PUBLIC]
    if host.startswith("private"):
        return [PRIVATE]
    if host.startswith("both"):
        return [PUBLIC, PRIVATE]
    raise OSError("unknown")


def a_request(subject: str, request_id: str = FIRST, **changes: Any) -> dict[str, Any]:
    """Args: changes: fields that are other, or left out where None."""
    made = {
        "regulation": "gdpr",
        "subject_request_id": request_id,
        "subject_request_type": "erasure",
        "submitted_time": datetime.now(UTC).isoformat(timespec="seconds"),
        "subject_identities": [{"identity_type": "controller_customer_id", "identity_value": subject, "identity_format": "raw"}],
    } | changes
    return {name: value for name, value in made.items() if value is not None}


def bodies(subject: str, image: str, request_id: str = FIRST) -> dict[str, dict[str, Any]]:
    """A whole body for each route that reads one, by its path. Args: image: a digest, of an image whose label is not `two`."""
    return {
        "/requests": a_request(subject, request_id),
        "/images": {"subject_request_id": request_id, "sha256": [image]},
        "/corrections": {"subject_request_id": request_id, "sha256": [image], "label": "two"},
        "/requests/{request_id}/hold": {"until": "2030-01-31", "reason": "file 42"},
        "/requests/{request_id}/extend": {"days": 30, "reason": "file 42"},
        "/lookup": {"subject": subject},
    }


@dataclass
class Doorway:
    door: Door
    web: TestClient
    _tokens: dict[tuple[str, ...], str] = field(default_factory=dict)

    def token(self, client: str, *scopes: str, days: int = 30) -> str:
        key = (client, *scopes, str(days))
        if key not in self._tokens:
            self._tokens[key] = tokens.create(self.door.store, client, scopes, days, datetime.now(UTC))[1]
        return self._tokens[key]

    def ask(self, method: str, path: str, token: str | None = None, **options: Any) -> Answer:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.web.request(method, path, headers=headers | options.pop("headers", {}), **options)

    def send(self, body: dict[str, Any], *scopes: str, client: str = "acme") -> Answer:
        return self.ask("POST", "/requests", self.token(client, *(scopes or ("submit", "read"))), json=body)

    def status(self, request_id: str = FIRST, client: str = "acme") -> dict[str, Any]:
        answer = self.ask("GET", f"/requests/{request_id}", self.token(client, "submit", "read"))
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def line(self, answer: Answer, code: int) -> str:
        """The line of an answer that is a refusal of this code."""
        assert answer.status_code == code, answer.text
        error = json.loads(answer.content)["error"]
        assert error["code"] == code
        assert "\n" not in error["message"]
        return str(error["message"])

    def require_signed(self, answer: Answer) -> None:
        """Raise InvalidSignature unless the certificate that the door shows signed exactly this body."""
        certificate = x509.load_pem_x509_certificate(self.ask("GET", "/certificate.pem").content)
        key = certificate.public_key()
        assert isinstance(key, Ed25519PublicKey)
        key.verify(base64.b64decode(answer.headers["X-OpenDSR-Signature"]), answer.content)
        assert answer.headers["X-OpenDSR-Processor-Domain"] == "door.example"

    @property
    def states(self) -> dict[str, str]:
        return {request.request_id: request.state for request in self.door.home.ledger.all()}


@contextlib.contextmanager
def doorway(project: Project) -> Iterator[Doorway]:
    """A door without its courier, on a project whose ledger was not opened yet."""
    door = Door(project, signing.own_signer(project.layout, HOST), resolver=resolve)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_schema, "NullPool", NullPool)  # the fakes' pool closes connections that other threads use
        project.ledger.head()
    with TestClient(make_door(project, door, courier=False), base_url=HOST, raise_server_exceptions=False) as web:
        yield Doorway(door, web)
