"""How the server answers: JSON, and one plain line where something is refused. Never a traceback, never what was sent."""

import json
from typing import Any

from starlette.responses import Response

from lmeraser.core.errors import ImageError, LmeraserError


class RefusedError(Exception):
    """A route refuses. Attributes: status: of HTTP; line: for the client."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status, self.line = status, line


def answer(content: Any, status: int = 200) -> Response:
    body = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    return Response(body, status, media_type="application/json")


def refusal(status: int, line: str, retry_s: int | None = None) -> Response:
    """`{"error": LINE}`, as the Open Inference Protocol has it. Args: retry_s: when the client may come again."""
    response = answer({"error": " ".join(line.split())}, status)
    if retry_s is not None:
        response.headers["retry-after"] = str(retry_s)
    return response


def status_of(error: LmeraserError) -> int:
    """Of HTTP: 400 for images that the client can mend; 503 for all else, which the operator must, or time."""
    return 400 if isinstance(error, ImageError) else 503
