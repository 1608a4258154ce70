"""The report of a real project names nobody and is what a browser can show; a review has the numbers of `dvc metrics diff`."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from reports import everything
from sandbox import CANARY, Sandbox

from lmeraser.report.page import render

pytestmark = pytest.mark.slow


def git(project: Sandbox, *arguments: str) -> None:
    command = ["git", "-C", str(project.root), "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def erased(built: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """A project with one erasure, everybody's state committed and the state without the person in the workspace."""
    root = tmp_path_factory.mktemp("report") / "project"
    shutil.copytree(built.root, root, symlinks=True)
    project = Sandbox(root)
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "everybody")
    done = project.lmeraser("forget", "--subject", project.people()[1])
    assert done.returncode == 0, done.stderr
    return project


def test_review_has_the_numbers_of_dvc_metrics_diff(erased: Sandbox) -> None:
    done = erased.lmeraser("review", "--json")
    assert done.returncode in (0, 1), done.stderr
    review: dict[str, Any] = json.loads(done.stdout)
    diff = json.loads(erased.dvc("metrics", "diff", "--all", "--json"))["metrics/metrics.json"]
    numbers = {name: change for name, change in review["metrics"].items() if change["old"] is not None}  # DVC leaves null out
    assert len(diff) > 10
    assert {name: (change["old"], change["new"]) for name, change in numbers.items()} == {
        name: (change["old"], change["new"]) for name, change in diff.items()
    }
    assert {name: change["change"] for name, change in numbers.items()} == {
        name: round(change["diff"], 6) for name, change in diff.items()
    }
    assert review["blast"]["changed"]
    assert review["cost"]["seconds"] > 0
    assert len(review["cost"]["requests"]) == 1
    assert review["blast"]["known"]


def test_report_and_review_of_a_real_project_name_nobody(erased: Sandbox) -> None:
    written = [erased.lmeraser("review", "--markdown", "-"), erased.lmeraser("review"), erased.lmeraser("report", "--json")]
    page = (erased.root / "report.html").read_text(encoding="utf-8")
    assert [done.returncode for done in written][2] == 0
    for said in (*(done.stdout + done.stderr for done in written), page):
        assert CANARY not in said
        assert str(erased.root) not in said
    assert "✓</strong> The certificate verifies, and its chain is whole." in page
    for image in (erased.root / "people" / "images").iterdir():
        assert base64.b64encode(image.read_bytes()[40:70]).decode() not in page
    assert erased.lmeraser("report").returncode == 0
    assert (erased.root / "report.html").read_text(encoding="utf-8") == page
    assert "data:image/png;base64," in page or "none is shown" in page


# in a browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything that one can show."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(render(everything("<script>document.title = 'taken'</script> & \"words\"")))
    return path


def test_page_opens_without_an_error_and_asks_the_network_for_nothing(browser: Browser, page: Path) -> None:
    browser.requests()
    browser.open(page)
    assert [url for url in browser.requests() if not url.startswith("data:")] == [page.as_uri()]
    assert browser.complaints() == []
    assert browser.driver.title == "Erasure report, project 0123456789abcdef"
    assert browser.run("return getComputedStyle(document.querySelector('.cards')).display") == "grid", "its style is applied"


def test_accessibility_tree_has_landmarks_headings_named_pictures_and_table_headers(browser: Browser, page: Path) -> None:
    browser.open(page)
    seen = browser.named()
    roles = [role for role, _ in seen]
    assert {"main", "banner", "navigation", "contentinfo"} <= set(roles)
    assert roles.count("heading") > 10
    assert roles.count("columnheader") > 25
    assert roles.count("rowheader") > 10
    pictures = [name for role, name in seen if role in ("image", "img", "SvgRoot", "graphics-document")]
    assert len(pictures) >= 5
    assert all(pictures)
    named = [name for role, name in seen if role in ("region", "link", "table")]
    assert named
    assert all(named)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(browser: Browser, page: Path, scheme: str) -> None:
    browser.media(scheme)
    browser.open(page)
    told = browser.contrasts()
    assert len(told) > 100
    assert [entry for entry in told if entry[0] < 4.5] == []
    assert browser.light() == (scheme == "light")
    browser.media("light")


def test_page_fits_a_phone_and_its_tables_scroll_for_themselves(browser: Browser, page: Path) -> None:
    with browser.phone():
        browser.open(page)
        assert browser.run("return document.documentElement.scrollWidth") <= 320
        wide = "return [...document.querySelectorAll('.wide, .picture')].map(e => [e.scrollWidth > e.clientWidth, e.tabIndex])"
        assert [True, 0] in browser.run(wide)
        assert {index for _, index in browser.run(wide)} == {0}, "a keyboard reaches what scrolls"


def test_keyboard_comes_to_the_content_first(browser: Browser, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    focused: Callable[[], Any] = lambda: browser.run("return document.activeElement.getAttribute('href')")  # noqa: E731
    browser.driver.switch_to.active_element.send_keys(Keys.TAB)
    assert focused() == "#main"
    assert browser.run("return document.activeElement.getBoundingClientRect().left") >= 0, "it is seen once it has the focus"


def test_page_prints_with_every_section_on_white(browser: Browser, page: Path) -> None:
    browser.open(page)
    pdf = base64.b64decode(browser.do("Page.printToPDF", printBackground=True)["data"])
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 2
    browser.media("dark", "print")
    assert browser.run("return getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("return getComputedStyle(document.querySelector('nav')).display") == "none"
    browser.media("light")
