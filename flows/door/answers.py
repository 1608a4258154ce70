"""How the door answers: one canonical JSON object, signed where somebody was let in, never kept by a cache. Errors as OpenDSR
has them.

An error says what to mend, to who may mend it: a caller is told of the caller's mistakes. What the operator must mend goes to the
door's own log, and the caller hears that it is not the caller's fault.
"""

import errno
import re
import sqlite3
from typing import Any

from fastapi import Request as HttpRequest
from starlette.exceptions import HTTPException
from starlette.responses import Response

from flows.door import opendsr
from flows.door.signing import Signer
from lmeraser.core.digest import canonical_json
from lmeraser.core.errors import BadInputError, LmeraserError, ParamsError, ProjectError
from lmeraser.core.progress import say

NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
LATER = {"Retry-After": "30"}
WORDS = {
    404: "there is nothing at this address; see /openapi.json for what there is",
    405: "this method is not for this address; see /openapi.json for those that are",
}
OPTION = re.compile(r"--([a-z0-9-]+)")
OPERATOR_S = (
    "the service cannot take this now, and its operator has been told; nothing is lost that was acknowledged: retry later"
)


class RefusedError(Exception):
    """An answer that is an error. Attributes: code: HTTP's; headers: beside the usual ones."""

    def __init__(self, code: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.headers = code, message, headers or {}


def signed(signer: Signer, code: int, content: dict[str, Any]) -> Response:
    body = canonical_json(content)
    return Response(body, code, {**NO_STORE, **signer.headers(body)}, "application/json")


def refused(code: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return Response(canonical_json(opendsr.problem(code, message)), code, NO_STORE | (headers or {}), "application/json")


def as_refusal(error: Exception) -> RefusedError:
    """What a caller is told of an error of ours; the operator's lines go to the log."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, HTTPException):
        line = WORDS.get(error.status_code, "the request is not valid HTTP for this address")
        return RefusedError(error.status_code, line, dict(error.headers or {}))
    if isinstance(error, BadInputError) and not isinstance(error, ProjectError | ParamsError):
        return RefusedError(400, by_fields(error))
    if isinstance(error, LmeraserError | OSError | sqlite3.Error):
        say(f"door: {_line(error)}")
        return RefusedError(503, OPERATOR_S, LATER)
    say(f"door: {type(error).__name__}; report it")  # no text: it may quote what was sent
    return RefusedError(500, "the service failed; nothing is lost that was acknowledged: retry later")


def by_fields(error: LmeraserError) -> str:
    """The line of an error that commands tell too, with fields of a body in the place of options."""
    parts = str(error).split("`")
    return "`".join(part if place % 2 else OPTION.sub(r"`\1`", part) for place, part in enumerate(parts))


def _line(error: Exception) -> str:
    if isinstance(error, LmeraserError):
        return str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "the disk is full; free some space" if full else type(error).__name__


async def handle(_: HttpRequest, error: Exception) -> Response:
    """FastAPI's handler of every error."""
    refusal = as_refusal(error)
    return refused(refusal.code, refusal.message, refusal.headers)
