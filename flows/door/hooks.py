"""Hooks: a command or a webhook of the operator that is told when a request is received, in effect, certified, late or failed.

A command gets one JSON object on standard input, and no shell, no secret of the service and no terminal. A webhook gets the
same object as a POST, signed as the Standard Webhooks specification says (github.com/standard-webhooks/standard-webhooks):
HMAC-SHA-256 over `ID.TIMESTAMP.BODY`. Either knows requests by their ids; no name of a person is in it.
"""

import base64
import hmac
import json
import os
import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows import processes
from flows.door import outbox
from flows.door.callbacks import post_anywhere
from flows.door.outbox import COMMAND, EVENTS, WEBHOOK, Delivery
from flows.door.store import Store
from flows.project import Project
from lmeraser.core.digest import canonical_json, sha256_of_file
from lmeraser.core.errors import BadInputError, StepFailedError
from lmeraser.erase.requests import Request
from lmeraser.erase.states import status

TEST = "test"  # the event of `lmeraser hook test`
PATIENCE = 60.0  # s that a command has
PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR")  # variables; others may hold secrets
MOST_DAYS = 365


def check_events(text: str) -> list[str]:
    """Raises: BadInputError."""
    events = [word.strip() for word in text.split(",") if word.strip()]
    if not events or not set(EVENTS) >= set(events):
        raise BadInputError(f"--on names no event, or one that there is not; expected some of {','.join(EVENTS)}")
    return list(dict.fromkeys(events))


def check_command(text: str) -> list[str]:
    """The words of a command. Raises: BadInputError."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadInputError("--command has a quote that is not closed; quote it as for a shell") from error
    if not words:
        raise BadInputError("--command is empty; expected a program with its arguments")
    return words


def check_webhook(url: str) -> str:
    """Raises: BadInputError. The operator may name private addresses, and plain http on this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise BadInputError("--url is not a URL; expected https://HOST/PATH") from error
    local = host in ("localhost", "127.0.0.1", "::1")
    if not host or parts.scheme not in (("https", "http") if local else ("https",)) or "@" in parts.netloc:
        raise BadInputError("--url is not an https URL (http is for this machine alone); expected https://HOST/PATH")
    return url


def add(
    project: Project, store: Store, command: str | None, url: str | None, on: str, days_before: int
) -> tuple[str, str | None]:
    """A new hook: its id, and a webhook's secret, which is shown once. What happened before is not told.

    Raises: BadInputError.
    """
    if (command is None) == (url is None):
        raise BadInputError("a hook is a command or a webhook; give one of --command and --url")
    events = check_events(on)
    if not 1 <= days_before <= MOST_DAYS:
        raise BadInputError(f"--days-before is {days_before}, expected 1 to {MOST_DAYS}")
    head = project.ledger.head()[0]
    if command is not None:
        target = json.dumps(check_command(command))
        return outbox.add_hook(store, COMMAND, target, "", events, days_before, head), None
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    return outbox.add_hook(store, WEBHOOK, check_webhook(url or ""), secret, events, days_before, head), secret


def payload(project: Project, request: Request | None, event: str, at: str, delivery_id: str) -> dict[str, Any]:
    """What a hook is told. Args: request: None for a test."""
    told: dict[str, Any] = {"event": event, "at": at, "delivery_id": delivery_id}
    if request is None:
        return told
    certificate = project.layout.root / request.certificate if request.certificate else None
    known = certificate is not None and certificate.is_file()
    return told | {
        "request_id": request.request_id,
        "state": request.state,
        "request_status": status(request.state),
        "received_at": request.received_at,
        "due_at": request.due_at,
        "certificate": request.certificate,
        "certificate_sha256": sha256_of_file(certificate) if known and certificate else None,
    }


def signature(secret: str, delivery_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of the Standard Webhooks specification."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{delivery_id}.{timestamp}.".encode() + body, "sha256")
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def run(command: Sequence[str], body: bytes, folder: Path) -> None:
    """Run a hook's command in the project's folder. Raises: StepFailedError if it is not there, fails, or takes too long."""
    variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    try:
        code = processes.tell(command, folder, variables, body, PATIENCE)
    except TimeoutError as error:
        raise StepFailedError(f"the command took more than {PATIENCE:.0f} s and was ended") from error
    except OSError as error:
        raise StepFailedError(f"the command could not be started ({error.strerror})") from None
    if code:
        raise StepFailedError(f"the command ended with status {code}, expected 0")


async def send(delivery: Delivery, body: bytes, folder: Path, timestamp: int) -> None:
    """Tell one hook. Raises: StepFailedError."""
    import asyncio

    if delivery.kind == COMMAND:
        await asyncio.to_thread(run, json.loads(delivery.target), body, folder)
    else:
        await post_anywhere(delivery.target, body, signature(delivery.secret, delivery.delivery_id, timestamp, body))


def encoded(told: dict[str, Any]) -> bytes:
    return canonical_json(told)


def test(project: Project, store: Store, hook: str) -> None:
    """Tell a hook the event `test`, once, now. Raises: BadInputError if there is none with this id; StepFailedError."""
    import asyncio
    import time
    from datetime import UTC, datetime

    rows = [row for row in outbox.subscriptions(store) if row["subscription_id"] == hook and row["kind"] in outbox.HOOK_KINDS]
    if not rows:
        raise BadInputError("no hook has this id; `lmeraser hook list` shows the ids")
    at = datetime.now(UTC).isoformat(timespec="seconds")
    delivery = Delivery(0, secrets.token_hex(12), hook, rows[0]["kind"], rows[0]["target"], rows[0]["secret"], "", TEST, at, 0)
    body = encoded(payload(project, None, TEST, at, delivery.delivery_id))
    asyncio.run(send(delivery, body, project.layout.root, int(time.time())))
