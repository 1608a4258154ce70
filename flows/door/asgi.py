"""The door as one application, and the server that runs it."""

import asyncio
import contextlib
import json
import signal
import socket
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.door.answers import RefusedError, as_refusal, handle, refused
from flows.door.courier import Courier
from flows.door.guard import Door
from flows.door.requests import take_up
from flows.door.routes import router
from flows.project import Project
from lmeraser.core.errors import LmeraserError
from lmeraser.core.progress import say

PREFIX = "/v2"  # OpenDSR wants the major version in front; without it is for people
SWEEP = 60.0  # s
OURS = (RefusedError, HTTPException, LmeraserError, OSError, sqlite3.Error)


@dataclass
class Contained:
    """One line in the log for each answer, by route and never by address; and no error gets out with its text."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, code = time.monotonic(), 0

        async def noting(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except ClientDisconnect:
            pass
        except Exception as error:  # (its text may quote what was sent, and a server would print it)
            refusal = as_refusal(error)
            if not code:
                await refused(refusal.code, refusal.message, refusal.headers)(scope, receive, noting)
        route = getattr(scope.get("route"), "path", None)
        took = round(1000 * (time.monotonic() - began), 1)
        say(json.dumps({"route": route, "method": scope["method"] if route else None, "status": code, "ms": took}))


def make_door(project: Project, door: Door, courier: bool = True) -> FastAPI:
    """Args: courier: also tell callbacks and hooks, and take up what an earlier door had received, while the application runs."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        work = [_sweep(door), Courier(project, door.signer, door.resolver, door.open_http).run()] if courier else []
        tasks = [asyncio.create_task(act) for act in work]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await door.finish()

    app = FastAPI(
        title="lmeraser",
        summary="Requests to be forgotten (OpenDSR 2.0)",
        version="2.0",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    include(app, door)
    return app


async def _sweep(door: Door) -> None:
    """Take up what was received and is not in effect, at the start and every minute."""
    while True:
        try:
            await run_in_threadpool(take_up, door)
        except (LmeraserError, OSError) as error:
            say(f"door: {as_refusal(error).message}")
        await asyncio.sleep(SWEEP)


def include(app: FastAPI, door: Door) -> None:
    """Give an application the door's routes, its errors and its log."""
    app.include_router(router(door))
    app.include_router(router(door), prefix=PREFIX, include_in_schema=False)
    for kind in OURS:
        app.add_exception_handler(kind, handle)
    app.add_middleware(Contained)
    plain = app.openapi

    def with_tokens() -> dict[str, Any]:
        document = plain()
        document.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        return document

    app.openapi = with_tokens  # type: ignore[method-assign]


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(app: FastAPI, listening: socket.socket, tls: tuple[Path, Path] | None, proxy: bool) -> None:
    """Answer until interrupted; answers under way are finished. Args: tls: certificate and key; proxy: trust its headers."""
    import uvicorn

    certificate, key = tls or (None, None)
    config = uvicorn.Config(
        app,
        access_log=False,  # it would print addresses, and whatever stands in them
        log_level="warning",
        server_header=False,
        proxy_headers=proxy,
        forwarded_allow_ips="127.0.0.1",  # whatever the environment says
        limit_concurrency=256,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=15,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    signal.signal(signal.SIGTERM, _interrupt)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
