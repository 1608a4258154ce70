"""The application: routers behind one guard. Errors are one plain line, and what nobody expected says nothing of the request."""

import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Protocol

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.serving.limits import Guard, Limits
from flows.serving.metrics import log
from flows.serving.replies import RefusedError, refusal, status_of
from lmeraser import __version__
from lmeraser.core.errors import LmeraserError

LINES = {404: "there is no such route; see /openapi.json", 405: "this route takes another method; see /openapi.json"}
FREE = ("/v2/health", "/metrics")  # what a supervisor asks has no rate


class Observer(Protocol):
    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request. Args: route: as it is declared, never as it was asked for."""


class Outside:
    """ASGI: counts and logs each request, and turns what nobody expected into a line without content."""

    def __init__(self, app: ASGIApp, observer: Observer) -> None:
        self._app, self._observer = app, observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            log("error", kind=type(error).__name__, where=_where(error))
            if not status:
                await refusal(*_reply_to(error))(scope, receive, watched)
        seconds = time.perf_counter() - start
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH") else "other"
        self._observer.request(route, status, seconds)
        log("request", route=route, method=method, status=status, seconds=round(seconds, 4))


def _where(error: BaseException) -> str:
    """File and line of our own code or a library's; never a value."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace is not None else "nowhere"


def _reply_to(error: Exception) -> tuple[int, str]:
    """Status and line. Of the framework's errors only their kind is told, because its own texts repeat what was sent."""
    if isinstance(error, RefusedError):
        return error.status, error.line
    if isinstance(error, LmeraserError):
        return status_of(error), str(error)
    if isinstance(error, HTTPException):
        return error.status_code, LINES.get(error.status_code, HTTPStatus(error.status_code).phrase)
    if isinstance(error, ClientDisconnect):
        return 400, "the client went away"  # which nobody reads; but it is no failure of the server
    if isinstance(error, RequestValidationError):
        return 422, "the request is not what this route expects; see /openapi.json"
    return 500, "the server failed; its log says where"


async def _refuse(_: Request, error: Exception) -> Response:
    status, line = _reply_to(error)
    return refusal(status, line, retry_s=1 if status == HTTPStatus.SERVICE_UNAVAILABLE else None)


def make_app(routers: Sequence[APIRouter], limits: Limits, observer: Observer) -> ASGIApp:
    """Everything that is served, as one application. Args: routers: of this room, made with what they need."""
    app = FastAPI(title="lmeraser", version=__version__, docs_url=None, redoc_url=None)  # those load scripts from elsewhere
    for kind in (RefusedError, LmeraserError, HTTPException, RequestValidationError, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _refuse)
    for router in routers:
        app.include_router(router)
    return Outside(Guard(app, limits, FREE), observer)
