"""The pages for the one who decides, near copies and several ids, as a browser shows them, with names that try to be markup."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from browser import Browser
from PIL import Image

from lmeraser.report.aliases_page import AliasFacts, AliasGroup, AliasMember, render_aliases
from lmeraser.report.near_page import NearFacts, NearImage, render_near

pytestmark = pytest.mark.slow

HOSTILE = "<img src=http://127.0.0.1:9/x onerror=\"document.title = 'taken'\">=1+1"


def picture(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (112, 84), (shade, 128, 255 - shade)).save(stream, format="PNG")
    return stream.getvalue()


def near() -> bytes:
    images = [
        NearImage(picture(90), picture(80), f"{number:064x}", number == 0, number + 1, 2, number == 2, 0.25, 3, True, number == 1)
        for number in range(3)
    ]
    return render_near(NearFacts(HOSTILE, 4, 20_000, 5, 0.01, 300, 0.75, 9, images))


def aliases() -> bytes:
    members = [AliasMember(HOSTILE, 3, True, False), AliasMember("anna-lena-" * 12, 0, False, True)]
    return render_aliases(AliasFacts([AliasGroup("same name", 0, members, 7), AliasGroup("same images", 2, members, 0)], 3, 2))


PAGES = pytest.mark.parametrize("make", [near, aliases])


@PAGES
def test_page_asks_the_network_for_nothing_and_runs_nothing(make: Callable[[], bytes], browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_bytes(make())
    browser.requests()
    browser.open(page)
    assert [url for url in browser.requests() if not url.startswith("data:")] == [page.as_uri()]
    assert browser.complaints() == []
    assert browser.driver.title in ("Near copies", "Several ids")
    assert "document.title" in browser.run("return document.body.innerText"), "what tries to be markup is text"


@PAGES
def test_page_is_read_by_eyes_and_by_screen_readers_on_a_phone_too(
    make: Callable[[], bytes], browser: Browser, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    page.write_bytes(make())
    for scheme in ("light", "dark"):
        browser.media(scheme)
        browser.open(page)
        told = browser.contrasts()
        assert told
        assert [entry for entry in told if entry[0] < 4.5] == []
        assert browser.light() == (scheme == "light")
    browser.media("light")
    seen = browser.named()
    assert {"main", "banner", "heading"} <= {role for role, _ in seen}
    assert all(name for role, name in seen if role in ("image", "img", "table", "textbox", "region", "link"))
    with browser.phone():
        browser.open(page)
        assert browser.run("return document.documentElement.scrollWidth") <= 320
