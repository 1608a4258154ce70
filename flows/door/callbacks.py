"""Send one POST: to a client's callback, pinned to the address that was checked, or to a webhook or a time-stamp authority of
the operator.

No redirect is followed, no proxy is asked. 2xx is a success. At most 4 KB of an answer are read and nothing is made of them, but
for an authority's answer.
"""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

from flows.door.addresses import Target
from lmeraser.core.errors import StepFailedError

WHOLE = 10.0  # s for one try, from connecting to the end of the answer's head
MOST = 4096  # bytes that are read of an answer


def _pinned(target: Target) -> tuple[str, dict[str, str], dict[str, str]]:
    """URL by address, the headers and httpx's extensions that make TLS ask for the host's certificate."""
    parts = urlsplit(target.url)
    address = f"[{target.address}]" if ":" in target.address else target.address
    host = f"[{target.host}]" if ":" in target.host else target.host
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    named = host if parts.port is None else f"{host}:{target.port}"
    return f"{parts.scheme}://{address}:{target.port}{path}", {"Host": named}, {"sni_hostname": target.host}


async def post(target: Target, body: bytes, headers: Mapping[str, str]) -> None:
    """Raises: StepFailedError with a line that holds no address and nothing of the answer but its status."""
    url, host, extensions = _pinned(target)
    await _post(url, body, {**headers, **host}, extensions, MOST)


async def post_anywhere(url: str, body: bytes, headers: Mapping[str, str], most: int = MOST) -> bytes:
    """To an address that the operator named; returns at most `most` bytes of the answer. Raises: StepFailedError."""
    return await _post(url, body, headers, {}, most)


async def _post(url: str, body: bytes, headers: Mapping[str, str], extensions: Mapping[str, str], most: int) -> bytes:
    import httpx

    whole = {"Content-Type": "application/json", "User-Agent": "lmeraser", "Accept-Encoding": "identity", **headers}
    read = bytearray()
    try:
        async with (
            asyncio.timeout(WHOLE),
            httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=WHOLE) as client,
            client.stream("POST", url, content=body, headers=whole, extensions=dict(extensions)) as answer,
        ):
            async for chunk in answer.aiter_raw(MOST):
                read += chunk
                if len(read) >= most:
                    break
            code = answer.status_code
    except TimeoutError as error:
        raise StepFailedError(f"no answer within {WHOLE:.0f} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise StepFailedError(f"it could not be reached ({type(error).__name__})") from None
    if not 200 <= code < 300:
        raise StepFailedError(f"it answered with status {code}, expected 2xx")
    return bytes(read[:most])
