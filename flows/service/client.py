"""Tell a Prefect server that a request waits: an event that holds its id and nothing else.

Events are not durable, and need not be: the ledger has the request, and the sweep finds it within a minute.
"""

import base64
import json
import os
import urllib.error
import urllib.request
import uuid
from datetime import UTC, datetime
from typing import Any

from flows.purge.prefect_events import EVENT, RESOURCE
from lmeraser.core.layout import Layout
from lmeraser.core.progress import say


def server_of(layout: Layout) -> tuple[str, str] | None:
    """API address and `user:password` of the server to tell: the environment's, or the one that `make serve` started."""
    if "PREFECT_API_URL" in os.environ:
        return os.environ["PREFECT_API_URL"], os.environ.get("PREFECT_API_AUTH_STRING", "")
    try:
        server = json.loads((layout.private_state / "server.json").read_bytes())
        return str(server["url"]), str(server["auth"])
    except (OSError, ValueError, KeyError):
        return None


def announce(layout: Layout, request_id: str) -> bool:
    """Emit the event if there is a server; returns whether it took it."""
    server = server_of(layout)
    if server is None:
        return False
    event = {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": EVENT,
        "resource": {"prefect.resource.id": f"{RESOURCE}{request_id}"},
        "payload": {"request_id": request_id},
    }
    return _post(server, "/events", [event]) is not None


def resume_waiting(layout: Layout, request_id: str, by: str) -> bool:
    """Resume the run that waits for the approval of a request, if there is one on a server; returns whether there was."""
    server = server_of(layout)
    if server is None:
        return False
    chosen = {
        "flow_runs": {"name": {"any_": [f"forget-{request_id}"]}, "state": {"type": {"any_": ["PAUSED"]}}},
    }
    runs = _post(server, "/flow_runs/filter", chosen) or []
    resumed = [_post(server, f"/flow_runs/{run['id']}/resume", {"run_input": {"approved_by": by}}) for run in runs]
    return any(answer is not None for answer in resumed)


def _post(server: tuple[str, str], path: str, body: Any) -> Any:
    """The server's answer to a POST; None, with a line for people, if it gave none."""
    url, auth = server
    headers = {"Content-Type": "application/json"}
    if auth:
        headers["Authorization"] = "Basic " + base64.b64encode(auth.encode()).decode()
    # The address is the operator's own setting, not a request's.
    asked = urllib.request.Request(url + path, json.dumps(body).encode(), headers)  # noqa: S310
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:  # noqa: S310
            return json.loads(answer.read() or b"true")
    except (urllib.error.URLError, OSError) as error:
        say(f"the server was not told ({type(error).__name__}); the request is in the ledger and the sweep will find it")
        return None
