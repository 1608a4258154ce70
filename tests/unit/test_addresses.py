"""Where a callback may go: to the public internet, to the very address that was checked, never where this machine alone can."""

import asyncio
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.door import addresses
from flows.door.addresses import check, is_public, names, parse
from lmeraser.core.errors import RequestError

INNER = [
    *(
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",  # noqa: S104
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
    ),
    *(
        "168.63.129.16",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
    ),
    *("fd00:ec2::254", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:93.184.215.14", "64:ff9b::7f00:1"),
    *(
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001:0:1::1",
        "2001:db8::1",
        "::127.0.0.1",
        "fec0::1",
        "",
        "nonsense",
        "127.1",
        "0x7f000001",
    ),
]


@pytest.mark.parametrize("address", INNER)
def test_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_public_address_is_one(address: str) -> None:
    assert is_public(address)


@given(
    st.ip_addresses(v=4, network="10.0.0.0/8")
    | st.ip_addresses(v=4, network="127.0.0.0/8")
    | st.ip_addresses(v=4, network="169.254.0.0/16")
)
def test_inner_address_is_refused_in_every_dress(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    dresses = [str(inner), f"::ffff:{inner}", str(ipaddress.IPv6Address((0x64FF9B << 96) | number))]
    dresses.append(str(ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1)))  # 6to4
    assert [dress for dress in dresses if is_public(dress)] == []


def checked(url: str, *answers: str) -> addresses.Target:
    async def resolver(host: str, port: int) -> list[str]:
        return list(answers)

    return asyncio.run(check(url, resolver))


def test_one_inner_address_among_public_ones_is_enough_to_refuse() -> None:
    assert checked("https://a.example/x", "93.184.215.14").address == "93.184.215.14"
    for answers in (["93.184.215.14", "10.0.0.1"], ["10.0.0.1"], []):
        with pytest.raises(RequestError, match="public internet"):
            checked("https://a.example/x", *answers)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://a.example/",
            "ftp://a.example/",
            "//a.example/",
            "a.example",
            "",
            "https://",
            "https:///x",
            "https://a.example:99999/",
        ),
        *(
            "https://a:b@a.example/",
            "https://@a.example/",
            "https://a.example/#x",
            "https://a.example:22/",
            "https://a.example:80/",
        ),
        *(
            "https://a .example/",
            "https://a.example\\@b.example/",
            "https://ä.example/",
            "https://a.example/\x00",
            "https://[::1/",
        ),
        *("file:///etc/passwd", "https://a.example:-1/", "gopher://a.example/"),
    ],
)
def test_url_of_another_form_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse(url)
    assert len(url) < 10 or url not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "2130706433", "0x7f.1", "localhost", "localhost.localdomain"])
def test_this_machine_is_refused_however_it_is_spelt(host: str) -> None:
    with pytest.raises(RequestError):
        asyncio.run(check(f"https://{host}/", addresses.resolve))


@pytest.mark.parametrize(
    "url", ["https://a.example/anna", "https://a.example/?q=%41NNA", "https://a.example/%2541nna", "https://Anna.example/"]
)
def test_address_that_spells_out_the_person_is_noticed(url: str) -> None:
    assert names(url, "anna")
    assert not names("https://a.example/told", "anna")
