"""Where answers are computed: threads beside the server's own, so that a health check never waits for a network."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from flows.serving.replies import RefusedError

Result = TypeVar("Result")

THREADS = 16  # callers whose rows wait together; how many passes run at once is the model's
WAITING = 64  # calls that may wait for a thread


class Pool:
    """A bounded pool: what comes when all threads and places are taken is refused."""

    def __init__(self, threads: int = THREADS, waiting: int = WAITING) -> None:
        self._threads = ThreadPoolExecutor(threads, "lmeraser-answer")
        self._free = threads + waiting

    async def run(self, work: Callable[[], Result]) -> Result:
        """Raises: RefusedError with 503 where too many wait already; whatever the work raises."""
        if self._free <= 0:
            raise RefusedError(503, "too many requests wait already; retry in a moment")
        self._free -= 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        # The work goes on when its client goes: only its end frees the place.
        future.add_done_callback(self._give_back)
        return await asyncio.shield(future)

    def _give_back(self, future: "asyncio.Future[Any]") -> None:
        self._free += 1
        if not future.cancelled():
            future.exception()  # looked at, or asyncio would print the one of a client that has gone

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
