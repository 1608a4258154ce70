"""The page is the same for the same facts, is text whatever the ledger holds, loads nothing, and stays usable with thousands."""

import base64
import hashlib
import html
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from builders import ROOT
from hypothesis import given
from hypothesis import strategies as st
from reports import DAY, NOTHING, everything, identity, request, sound

from lmeraser.report import drawing
from lmeraser.report.facts import Accuracy, Branch, ClusterFacts, ReportFacts, Work
from lmeraser.report.frames import prompt_of
from lmeraser.report.page import MOST_ROWS, TEMPLATES, coded, render, sisa_retrained, tally, verdicts

KINDS = ("person", "image", "person and image", "correction")
VOID = {"meta", "link", "img", "br"}


class Read(HTMLParser):
    """Elements in order, with their attributes, and the text between them."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def said(self) -> str:
        return " ".join("".join(self.text).split())


PAGES = (NOTHING, everything(), sound())


@pytest.mark.parametrize("facts", PAGES, ids=("nothing", "everything", "sound"))
def test_page_is_whole_and_tells_its_structure_to_those_who_cannot_see_it(facts: ReportFacts) -> None:
    page = Read(render(facts))
    assert page.open == []
    assert page.all("html") == [{"lang": "en"}]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        assert set(attributes.get("aria-labelledby", "").split()) <= set(ids)
    assert [attributes["href"][1:] in ids for attributes in page.all("a")] == [True] * len(page.all("a"))
    assert len(page.all("main")) == len(page.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert all(attributes.get("alt") for attributes in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    drawn = [attributes for attributes in page.all("svg") if attributes.get("aria-hidden") != "true"]
    assert all(attributes["role"] == "img" and attributes["aria-labelledby"] for attributes in drawn)


@pytest.mark.parametrize("facts", PAGES, ids=("nothing", "everything", "sound"))
def test_page_loads_nothing_runs_nothing_and_its_policy_fits_its_style(facts: ReportFacts) -> None:
    data = render(facts)
    page = Read(data)
    assert not page.all("script")
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href", "data", "action", "xlink:href"):
            assert re.match(r"data:|#", attributes.get(name, "#")), (tag, name)
    style = data.decode().split("<style>")[1].split("</style>")[0]
    assert not re.search(r"url\(|@import", style)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [tag["content"] for tag in page.all("meta") if tag.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert f"style-src 'sha256-{digest}'" in policy


@given(st.text(min_size=1, max_size=60))
def test_text_from_the_ledger_stays_text(words: str) -> None:
    usual, odd = Read(render(everything())), Read(render(everything(words)))

    def without_code(page: Read) -> list[tuple[str, dict[str, str]]]:
        return [element for element in page.elements if element[0] != "code"]  # backticks mark commands

    assert without_code(odd) == without_code(usual), "no element and no attribute comes of it"


@pytest.mark.parametrize(
    "words", ["<script>alert(1)</script>", "\"'><img src=x onerror=y>", "</style><b>", "{{ facts }}", "a&amp;b", "`<b>`"]
)
def test_text_that_would_be_markup_is_shown_letter_by_letter(words: str) -> None:
    page = render(everything(words)).decode()
    assert html.unescape(re.sub(r"</?code>", "`", str(coded(words)))) == words
    assert str(coded(words)) in page
    assert "<script" not in page
    assert "<b>" not in page


def test_the_same_facts_give_the_same_bytes_in_any_process() -> None:
    code = """
import hashlib, reports
from lmeraser.report.page import render
print(hashlib.sha256(render(reports.everything())).hexdigest())
"""
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    digests = [hashlib.sha256(render(everything())).hexdigest()]
    for seed, zone, language in (("1", "Asia/Kolkata", "tr_TR.UTF-8"), ("2", "America/St_Johns", "C")):
        settings = {"PYTHONPATH": path, "PYTHONHASHSEED": seed, "TZ": zone, "LANG": language, "LC_ALL": language}
        done = subprocess.run([sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True, check=True)
        digests.append(done.stdout.strip())
    assert len(set(digests)) == 1


def test_page_of_thousands_is_capped_counts_the_rest_and_shows_what_is_late() -> None:
    many = sound(5000)
    waiting = tuple(request(8000 + number, "quarantined") for number in range(300))
    late = replace(many, requests=(request(9999, "blocked", late=True), *waiting, *many.requests))
    data = render(late)
    page = Read(data)
    assert len(data) < 400_000
    assert identity(9999) in page.said, "the oldest, but late"
    assert f"{5301 - MOST_ROWS:,} more requests are not listed here" in page.said
    assert f"{5000 - MOST_ROWS:,} more certificates are not listed here" in page.said
    assert len(page.all("tr")) < 4 * MOST_ROWS


def test_certificate_that_does_not_verify_stands_first_with_its_reason() -> None:
    facts = everything("the signature does not fit")
    page = Read(render(facts)).said
    assert "does not verify: the signature does not fit" in page
    assert page.index("certificate 2 of 2") < page.index("1 ✓ valid")
    assert tally(facts)["certificates_valid"] == 1
    assert ("bad", "Not every certificate verifies, or the chain is not whole: see below.") in verdicts(facts)


def test_verdicts_say_what_is_wrong_and_only_that() -> None:
    kinds = [kind for kind, _ in verdicts(sound())]
    assert kinds == ["good", "good"]
    assert verdicts(NOTHING) == [("note", "No request was received yet.")]
    lacking = replace(sound(), certificates=sound().certificates[1:])
    assert ("bad", "1 request certified by the ledger has no certificate here that verifies.") in verdicts(lacking)
    assert ("bad", "An audit did not pass the last time it was made: see below.") in verdicts(everything())
    assert ("bad", "1 request past the due date.") in verdicts(everything())


def test_every_template_is_shipped_with_the_package() -> None:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        shipped = tomllib.load(stream)["tool"]["setuptools"]["package-data"]["lmeraser.report"]
    files = [path for path in TEMPLATES.rglob("*") if path.is_file()]
    assert all(any(path.relative_to(TEMPLATES.parent).match(pattern) for pattern in shipped) for path in files)
    assert len(files) == 6


def test_page_of_nothing_says_what_is_missing() -> None:
    said = Read(render(NOTHING)).said
    for line in (
        "There is no ledger here",
        "There is no certificate here yet",
        "There are no metrics yet",
        "No erasure was carried out yet",
    ):
        assert line in said


# pictures


@pytest.mark.parametrize("count", [1, 24, 40, 41, 500])
def test_map_holds_every_cluster_within_its_frame(count: int) -> None:
    clusters = [ClusterFacts(f"c{number:02d}", number or None, None, number % 3, number % 5 == 0) for number in range(count)]
    branches = [Branch(0, count - 1, 0, -1, None if count > 1 else "c00")]
    branches += [Branch(number, number, 1, 0, f"c{number:02d}") for number in range(count)] if count > 1 else []
    for tree in ((), branches):
        drawn = str(drawing.cluster_map(clusters, tree))
        width = float(re.findall(r'viewBox="0 0 (\S+)', drawn)[0])
        places = [float(x) for x in re.findall(r'<circle cx="([^"]+)"', drawn)]
        assert len(places) == count
        assert 0 < min(places) <= max(places) < width
        assert all(right - left > 5 for left, right in pairwise(places)), "side by side"
        assert (">c00</text>" in drawn) == (count <= drawing.TURNED)


def test_size_that_is_not_shown_does_not_follow_from_the_picture() -> None:
    def drawn(records: int | None) -> str:
        return str(
            drawing.cluster_map([ClusterFacts("c00", 100, None, 0, False), ClusterFacts("c01", records, None, 0, False)], ())
        )

    assert f'r="{drawing.SMALL}" class="cluster untouched unsized"' in drawn(None)
    assert drawn(50) != drawn(None)


@pytest.mark.parametrize("values", [(0.5,), (1.0, 1.0), (0.0, 1.0), (0.991, 0.992, 0.5)])
def test_chart_keeps_every_point_within_its_frame_and_marks_each_erasure(values: tuple[float, ...]) -> None:
    points = [Accuracy(DAY.format(place + 1), "x", value, 1.0) for place, value in enumerate(values)]
    drawn = str(drawing.accuracy_chart(points, [DAY.format(9), DAY.format(10)]))
    heights = [float(y) for y in re.findall(r'cy="([^"]+)"', drawn)]
    assert len(heights) == len(values)
    assert all(30 <= y <= 211 for y in heights)
    assert drawn.count('class="mark"') == 2
    assert drawing.accuracy_chart(points, ["CANARY", "", "0001-01-01"]), "what is no time is left out"
    many = str(drawing.accuracy_chart(points, [DAY.format(day) for day in range(1, 29)]))
    assert (many.count('class="mark"'), many.count('class="tally"')) == (0, 28)


def test_sisa_retrains_the_shards_that_hold_somebody() -> None:
    one = Work(DAY.format(1), 1, 1, 1, 10, 5, 1000, 1.0, False)
    assert sisa_retrained(one) == pytest.approx(100)
    assert sisa_retrained(replace(one, people=2)) == pytest.approx(190)
    assert sisa_retrained(replace(one, clusters=1)) == 1000


def test_prompt_is_grey_where_nothing_is_added() -> None:
    import io

    import numpy as np
    from PIL import Image

    frame = np.zeros((1, 4, 4), np.float32)
    assert set(np.asarray(Image.open(io.BytesIO(prompt_of("c00", frame).png))).ravel()) == {128}
    frame[0, 0, 0], frame[0, 3, 3] = -2.0, 1.0
    image = np.asarray(Image.open(io.BytesIO(prompt_of("c00", frame).png)))
    assert (image[0, 0], image[1, 1], image[3, 3]) == (0, 128, 191)


@given(st.permutations([*KINDS, *KINDS[:2]]), st.lists(st.sampled_from(("consent withdrawn", "expired")), max_size=3))
def test_types_are_counted_in_one_order_whatever_the_order_of_the_requests(kinds: list[str], origins: list[str]) -> None:
    of = [*origins, *[None] * (len(kinds) - len(origins))]
    requests = [replace(request(n), about=about, origin=origin) for n, (about, origin) in enumerate(zip(kinds, of, strict=True))]
    facts = replace(sound(), requests=tuple(requests))
    said = Read(render(facts)).said
    assert "By what they name: person 2, person and image 1, image 2, correction 1." in said
    for origin in set(origins):
        assert f"{origin} {origins.count(origin)}" in said.partition("Nobody sent these here: ")[2].partition(".")[0]
    assert ("Nobody sent these here" in said) == bool(origins)
