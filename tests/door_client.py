"""A client of the model server's application in this process."""

import asyncio
from typing import Any

import httpx
from builders import assert_clean
from served import photos
from starlette.types import ASGIApp

from flows.serving.limits import Limits

NAME = "digits"
LIMITS = Limits(body=50_000, images=8, rate=0)
INFER = f"/v2/models/{NAME}/infer"


class Client:
    """Of an application in this process."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, method: str, path: str, **given: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
                return await client.request(method, path, **given)

        return asyncio.run(ask())


def tensor(**changes: Any) -> dict[str, Any]:
    images = photos(2)
    given = {"name": "images", "datatype": "UINT8", "shape": [2, 8, 8], "data": images.ravel().tolist()}
    return {"inputs": [given | changes]}


def line_of(response: httpx.Response) -> str:
    """The one line of a refusal."""
    assert 400 <= response.status_code < 600
    content = response.json()
    assert [*content] == ["error"]
    assert_clean(content["error"])
    assert "Traceback" not in content["error"]
    return str(content["error"])
