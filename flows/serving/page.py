"""The report page, live: what was forgotten and where requests stand, as of now."""

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from flows.project import Project
from flows.report.gather import gather
from lmeraser.core.layout import Layout
from lmeraser.report.page import render

KEPT_S = 10.0  # s that a page is shown again: gathering one takes about a second of a core


@dataclass
class Page:
    """The page of a project; one is made at a time, whoever asks."""

    layout: Layout
    _made: tuple[float, bytes] | None = None
    _making: threading.Lock = field(default_factory=threading.Lock)

    def now(self) -> bytes:
        """Raises: ProjectError if the ledger cannot be read."""
        with self._making:
            if self._made is None or time.monotonic() - self._made[0] >= KEPT_S:
                project = Project(self.layout)  # with the params of now
                as_of = datetime.now(UTC).isoformat(timespec="seconds")
                self._made = time.monotonic(), render(gather(project, as_of))
            return self._made[1]


def make_router(layout: Layout) -> APIRouter:
    router, page = APIRouter(), Page(layout)

    @router.get("/", include_in_schema=False)
    async def report() -> Response:
        html = await run_in_threadpool(page.now)
        return Response(html, media_type="text/html; charset=utf-8", headers={"cache-control": "no-store"})

    return router
