"""The courier tells what waits in the outbox, again and again until it arrived, and asks for the timestamps of certificates. It
runs beside erasures and never holds one up.

The door has one, with callbacks; `make serve` starts one for hooks (`python -m flows.door.courier`); `lmeraser hook send` is
one round of it. Several may run: who takes a delivery has it for five minutes, and the others leave it alone.
"""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from types import FrameType

from flows.door import addresses, callbacks, hooks, opendsr, outbox
from flows.door.addresses import Resolver
from flows.door.outbox import CALLBACK, HOOK_KINDS, Delivery
from flows.door.signing import Signer
from flows.door.store import Store
from flows.door.timestamps import Stamping
from flows.project import Project
from lmeraser.core.digest import canonical_json
from lmeraser.core.errors import BadInputError, LmeraserError
from lmeraser.core.progress import say

POLL = 1.0  # s between two looks
AT_ONCE = 8  # deliveries under way together


class Courier:
    """Args: signer: of callbacks; without one they are left to the door. open_http: for tests."""

    def __init__(
        self, project: Project, signer: Signer | None = None, resolver: Resolver = addresses.resolve, open_http: bool = False
    ) -> None:
        self._project = project
        self._store = Store(project.layout)
        self._signer = signer
        self._resolver = resolver
        self._open_http = open_http
        self._kinds: Sequence[str] = (CALLBACK, *HOOK_KINDS) if signer else HOOK_KINDS
        self._stamping = Stamping(project)

    async def run(self) -> None:
        """Until cancelled. What goes wrong is told, and tried again. No delivery waits for an authority, which may be slow."""
        await asyncio.gather(self._repeat(self.round), self._repeat(self._stamping.round))

    async def _repeat(self, act: Callable[[], Awaitable[int]]) -> None:
        told = ""
        while True:
            line = ""
            try:
                await act()
            except LmeraserError as error:
                line = f"courier: {error}"
            except Exception as error:  # (whatever it is: the next look may find it mended)
                line = f"courier: {type(error).__name__}; trying again"
            if line and line != told:
                say(line)
            told = line
            await asyncio.sleep(POLL)

    async def round(self) -> int:
        """Tell everything whose turn it is; returns how many deliveries arrived. Raises: LmeraserError."""
        if not self._store.exists:
            return 0
        await asyncio.to_thread(outbox.collect, self._store, self._project.ledger, datetime.now(UTC))
        count = 0
        while taken := await asyncio.to_thread(outbox.take, self._store, self._kinds, time.time(), AT_ONCE):
            count += sum(await asyncio.gather(*map(self._deliver, taken)))
        return count

    async def _deliver(self, delivery: Delivery) -> bool:
        try:
            await self._send(delivery)
        except LmeraserError as error:
            wait = await asyncio.to_thread(outbox.failed, self._store, delivery, str(error), time.time())
            then = f"next try in {wait:.0f} s" if wait else f"given up after {outbox.ATTEMPTS} tries"
            say(f"{delivery.kind} {delivery.subscription_id}, {delivery.event} of request {delivery.request_id}: {error}; {then}")
            return False
        await asyncio.to_thread(outbox.arrived, self._store, delivery)
        return True

    async def _send(self, delivery: Delivery) -> None:
        request = await asyncio.to_thread(self._project.ledger.get, delivery.request_id)
        if delivery.kind != CALLBACK:
            told = hooks.payload(self._project, request, delivery.event, delivery.at, delivery.delivery_id)
            await hooks.send(delivery, hooks.encoded(told), self._project.layout.root, int(time.time()))
            return
        assert self._signer  # noqa: S101  (no callback is taken without one)
        controller = await asyncio.to_thread(outbox.owner, self._store, delivery.request_id)
        told = opendsr.callback(request, controller or opendsr.OPERATOR, delivery.event, delivery.target, self._signer.base_url)
        target = await addresses.check(delivery.target, self._resolver, self._open_http)
        body = canonical_json(told)
        await callbacks.post(target, body, self._signer.headers(body))


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Tell hooks until ended: a child of `make serve`."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(Courier(Project.find()).run())
    except BadInputError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
