"""Where a callback may go: https to a public address, resolved here and connected to as resolved, no redirect followed.

A client names the address, so it may point at what this machine alone can reach: loopback, a private network, a cloud's
metadata. The name is resolved and checked when the request comes, and again at each connection, which then goes to the very
address that was checked: whoever answers with another address the second time (DNS rebinding) gains nothing.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from lmeraser.core.errors import RequestError

Resolver = Callable[[str, int], Awaitable[list[str]]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

RESOLVING = 5.0  # s
PORTS = {443, *range(1024, 65536)}  # not those where mail, shells and the like listen
METADATA = frozenset({"168.63.129.16"})  # Azure's, which is registered as public; those of others are link-local or private
UNICAST = ipaddress.ip_network(
    "2000::/3"
)  # all that IANA gives out; NAT64 (64:ff9b::/96), site-local and mapped ones lie outside


@dataclass(frozen=True)
class Target:
    """An address to connect to. Attributes: host: as the URL has it; address: one of its own that was checked."""

    url: str
    host: str
    port: int
    address: str


def is_public(text: str) -> bool:
    """Whether an IP address is one of the internet at large, and so is every IPv4 address that it carries within."""
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if text in METADATA or "%" in text or not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    # Teredo and 6to4 reach IPv4 addresses by a detour; nobody's callback needs that.
    return address in UNICAST and not address.teredo and not address.sixtofour


async def resolve(host: str, port: int) -> list[str]:
    """Every address of a name. Raises: OSError, TimeoutError."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(RESOLVING):
        answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def parse(url: str, open_http: bool = False) -> tuple[str, int]:
    """Host and port of a URL that a callback may have. Args: open_http: for tests: also http, any port, any address.

    Raises: RequestError that does not show the URL.
    """
    where = "a callback's address"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise RequestError(f"{where} is not a URL; expected https://HOST/PATH") from error
    schemes = ("https", "http") if open_http else ("https",)
    if parts.scheme not in schemes or not host or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise RequestError(f"{where} is not an https URL; expected https://HOST/PATH")
    if parts.username is not None or parts.password is not None or parts.fragment or "@" in parts.netloc:
        raise RequestError(f"{where} has a user, a password or a fragment; expected https://HOST/PATH")
    port = port or (443 if parts.scheme == "https" else 80)
    if port not in PORTS and not open_http:
        raise RequestError(f"{where} has a port that is not allowed; expected 443, or 1024 and above")
    return host, port


async def check(url: str, resolver: Resolver, open_http: bool = False) -> Target:
    """The checked address to connect to. Raises: RequestError if one of the host's addresses is not public, or it has none."""
    host, port = parse(url, open_http)
    try:
        addresses = await resolver(host, port)
    except (OSError, UnicodeError) as error:  # TimeoutError is one of them
        raise RequestError("a callback's host does not resolve; check the address, and send the request again") from error
    if not addresses or not (open_http or all(map(is_public, addresses))):
        raise RequestError(
            "a callback's host is not on the public internet, so nothing is sent there; name a public https address"
        )
    return Target(url, host, port, addresses[0])


def names(url: str, subject: str) -> bool:
    """Whether a URL spells out a person: it would be stored, sent and seen by others."""
    spelt = url
    for _ in range(3):  # %2541 is A, two times over
        spelt = unquote(spelt)
    return subject.casefold() in spelt.casefold() or subject.casefold() in url.casefold()
