"""Whether the Prefect server answers: what a container's health check asks.

python -m flows.service.health        0: it answers; 1: it does not, with the reason in one line
"""

import base64
import sys
import urllib.error
import urllib.request

from flows.project import Project
from flows.service.client import server_of
from lmeraser.core.errors import LmeraserError
from lmeraser.core.progress import say

PATIENCE_S = 5.0


def problem() -> str | None:
    """Why a worker here would get no work; None if nothing keeps it from it. No address and no password is told."""
    try:
        server = server_of(Project.find().layout)
    except LmeraserError as error:
        return str(error)
    if server is None:
        return "no server is named; set PREFECT_API_URL, or run `make serve`"
    return problem_of(server)


def problem_of(server: tuple[str, str]) -> str | None:
    """Why a server gives no answer; None if it does. Args: server: address and `user:password`, as `server_of` gives them."""
    url, auth = server
    headers = {"Authorization": "Basic " + base64.b64encode(auth.encode()).decode()} if auth else {}
    try:
        # The address is the operator's own setting. Unlike /health, this asks for the password too.
        with urllib.request.urlopen(urllib.request.Request(f"{url}/admin/version", headers=headers), timeout=PATIENCE_S):  # noqa: S310
            return None
    except urllib.error.HTTPError as error:
        return f"the server refuses (status {error.code}); check PREFECT_API_AUTH_STRING"
    except (OSError, ValueError) as error:
        return f"the server does not answer ({type(error).__name__}); check PREFECT_API_URL and that it runs"


def main() -> None:
    line = problem()
    if line:
        say(f"error: {line}")
        sys.exit(1)


if __name__ == "__main__":
    main()
