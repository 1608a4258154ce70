"""Who may come in: what the routes work with, whose token it is and what it may do, and how much of a body is read."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from fastapi import Request as HttpRequest
from starlette.concurrency import run_in_threadpool

from flows.door import addresses, opendsr, tokens
from flows.door.addresses import Resolver
from flows.door.answers import LATER, RefusedError
from flows.door.signing import Signer
from flows.door.store import Store
from flows.door.tokens import Client, Failures
from flows.project import Project

T = TypeVar("T")
Needs = Sequence[frozenset[str]]  # all scopes of one of the sets

BUSY = 30.0  # s that a request waits for those before it
BODY = 20.0  # s that a body may take


@dataclass
class Door:
    """Attributes: home: the project; `alone` hands it out; open_http: callbacks may be http and anywhere, for tests."""

    home: Project
    signer: Signer
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    resolver: Resolver = addresses.resolve
    open_http: bool = False
    failures: Failures = field(default_factory=lambda: Failures(lambda: datetime.now(UTC).timestamp()))
    queued: threading.Lock = field(default_factory=threading.Lock)  # of who waits to solve the global head
    solving: threading.Lock = field(default_factory=threading.Lock)
    _params: tuple[int, int] | None = None
    _one: threading.Lock = field(default_factory=threading.Lock)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def store(self) -> Store:
        return Store(self.home.layout)

    def now(self) -> Project:
        """The project with the params of now: the door runs for months, and whether approval is asked for is one of them."""
        state = self.home.layout.params.stat()
        found = (state.st_ino, state.st_mtime_ns)
        if self._params != found:
            ledger, made = self.home.ledger, Project(self.home.layout)
            made.__dict__["ledger"] = ledger  # it does not depend on params, and opening one reads all of it
            self.home, self._params = made, found
        return self.home

    def alone(self, act: Callable[[Project], T]) -> T:
        """Do what looks at everybody in the project, one at a time: a project's roster is one thread's.

        Raises: RefusedError if others take too long.
        """
        if not self._one.acquire(timeout=BUSY):
            raise RefusedError(503, "the service is busy with other requests; retry later", LATER)
        try:
            return act(self.now())
        finally:
            self._one.release()

    def later(self, act: Callable[[], None]) -> None:
        """Do it in a thread, and let nobody wait for it: neither this answer nor the next one on its connection."""
        task = asyncio.create_task(run_in_threadpool(act))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def let_in(door: Door, http: HttpRequest, needs: Needs) -> Client:
    """Who shows a valid token with the scopes. Raises: RefusedError."""
    scheme, _, token = http.headers.get("authorization", "").partition(" ")
    client = None
    if scheme.lower() == "bearer":
        client = await run_in_threadpool(tokens.authenticate, door.store, token.strip(), door.clock())
    if client is None:
        wait = door.failures.add(http.client.host if http.client else "")
        if wait is not None:
            raise RefusedError(429, "too many tries without a valid token; wait", {"Retry-After": str(int(wait) + 1)})
        challenge = {"WWW-Authenticate": 'Bearer realm="lmeraser"'}
        raise RefusedError(401, "a token is missing, or it is not valid any more; send `Authorization: Bearer TOKEN`", challenge)
    if not any(scopes <= client.scopes for scopes in needs):
        wanted = " or ".join(" and ".join(sorted(scopes)) for scopes in needs)
        raise RefusedError(403, f"this token may not do that; it needs the scope {wanted}")
    return client


async def whole_body(http: HttpRequest) -> bytes:
    """Raises: RefusedError if it is too large or slow, or declared as something else than JSON."""
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError(415, "the content type is not supported; expected application/json")
    if http.headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError(415, "the content encoding is not supported; send the body as it is")
    read = bytearray()
    try:
        async with asyncio.timeout(BODY):
            async for chunk in http.stream():
                read += chunk
                if len(read) > opendsr.MAX_BODY:
                    line = f"the body is larger than {opendsr.MAX_BODY} bytes; send one request for each person"
                    raise RefusedError(413, line)
    except TimeoutError as error:
        raise RefusedError(408, f"the body did not come within {BODY:.0f} s; send it again") from error
    return bytes(read)
