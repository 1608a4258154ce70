"""What a client may ask for: so many bytes, so many images, so often. Whatever goes beyond is refused with one line."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.serving.replies import RefusedError, refusal

CLIENTS = 10_000  # whose rates are remembered; beyond it whoever was silent longest is forgotten
BURST_S = 2.0  # s of requests that a client may send at once


@dataclass(frozen=True)
class Limits:
    """Attributes: body: bytes of a request; images: of a request; rate: requests a second and client, 0: as many as come."""

    body: int = 8_000_000
    images: int = 256
    rate: float = 100.0


@dataclass
class Rate:
    """A bucket of tokens a client: it fills by `limit` a second, up to BURST_S seconds of them."""

    limit: float
    clock: Callable[[], float] = time.monotonic
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def wait_s(self, client: str) -> float:
        """Take a token: 0, or the seconds after which there is one again."""
        if not self.limit:
            return 0.0
        most, now = max(1.0, self.limit * BURST_S), self.clock()
        tokens, last = self._buckets.pop(client, (most, now))
        tokens = min(most, tokens + (now - last) * self.limit)
        allowed = tokens >= 1
        self._buckets[client] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self.limit


class Guard:
    """ASGI: refuses by rate before anything is read, and by size before it is kept. Health and metrics have no rate."""

    def __init__(self, app: ASGIApp, limits: Limits, free: tuple[str, ...]) -> None:
        self._app, self._limits, self._free, self._rate = app, limits, free, Rate(limits.rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = scope.get("client") or ("unknown", 0)
        wait = 0.0 if scope["path"].startswith(self._free) else self._rate.wait_s(str(client[0]))
        if wait:
            line = f"more than {self._limits.rate:g} requests a second; wait and retry"
            await refusal(429, line, retry_s=math.ceil(wait))(scope, receive, send)
            return
        too_large = RefusedError(413, f"the body has more than {self._limits.body} bytes; send fewer or smaller images")
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > self._limits.body:
            await refusal(too_large.status, too_large.line)(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._limits.body:
                raise too_large  # where a route reads it, which answers nothing before
            return message

        await self._app(scope, counted, send)
