"""People under several ids: found by bytes and by names, named on a private page alone, and nothing is changed by looking."""

import re
import stat
from pathlib import Path

import pytest
from builders import Row, contents
from fake_pipeline import CANARY, FakePipeline, everybody, fakes
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.erase.aliases import plain_name

PERSON = f"{CANARY}-1"


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> FakePipeline:
    """A project in which people are there twice: by name, by image, and one of them in public too. Nobody changes it."""
    folder = tmp_path_factory.mktemp("several")
    rows = [
        *everybody(),
        Row(f"{CANARY.upper()}_1", "one", seed=501),  # the person, written otherwise
        Row("Ann\u00e9 K\u00f6nig", "two", seed=502),
        Row("KONIG-ANNE", "one", seed=503),
        Row("ANNE.K\uff2fNIG", "two", seed=504),
        Row("another-one", "two", seed=20),  # an image of CANARY-2
        Row("stock-copy", "one", seed=100),  # an image of a public record
        Row("=1+1", "one", seed=505),
        Row("<b>=1 1</b>", "two", seed=506),
    ]
    with fakes(folder):
        return FakePipeline.build(folder / "built", rows)


@pytest.fixture
def people(several: FakePipeline, tmp_path: Path) -> FakePipeline:
    (tmp_path / "temporary").mkdir()
    return several


def page_of(pipeline: FakePipeline, folder: Path, *arguments: str) -> str:
    page = folder / "ids.html"
    page.unlink(missing_ok=True)
    with fakes(folder):
        pipeline.json("aliases", *arguments, "--page", str(page))
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    return page.read_text(encoding="utf-8")


def groups_in(page: str) -> set[frozenset[str]]:
    rows = re.findall(r"<ul>(.*?)</ul>", page.partition("groups-table")[2], re.DOTALL)
    return {frozenset(re.findall(r"<code>(.*?)</code>", row)) for row in rows}


# names


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("M\u00fcller, Anna", "MULLER ANNA"),
        ("anna_m", "Anna-M"),
        ("annam", "anna.m"),
        ("\uff21\uff4e\uff4e\uff41", "anna"),
        ("Stra\u00dfe", "STRASSE"),
        ("\u0130rem", "irem"),
        ("e\u0301va", "Eva"),
        ("subject 7", "Subject#7"),
        ("(1-2)", "1_2"),
    ],
)
def test_names_that_only_their_writing_tells_apart_are_one(one: str, other: str) -> None:
    assert plain_name(one) == plain_name(other) != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1-2", "12"),
        ("s1 2", "s12"),
        ("anna", "anne"),
        ("\u304b", "\u304c"),  # ka, ga
        ("\u0930\u093e\u092e", "\u0930\u092e\u093e"),  # the same letters of Devanagari in another order
        ("anna 1", "anna 01"),
    ],
)
def test_names_that_are_two_stay_two(one: str, other: str) -> None:
    assert plain_name(one) != plain_name(other)


@given(st.text(max_size=30))
def test_a_plain_name_is_plain_already(name: str) -> None:
    assert plain_name(plain_name(name)) == plain_name(name)


# what is found


def test_everybody_is_looked_at_and_named_on_the_page_alone(people: FakePipeline, tmp_path: Path) -> None:
    before = {name: data for name, data in contents(people.root).items() if "ledger.db" not in name}
    page = page_of(people, tmp_path)
    assert groups_in(page) == {
        frozenset({PERSON, f"{CANARY.upper()}_1"}),
        frozenset({"Ann\u00e9 K\u00f6nig", "ANNE.K\uff2fNIG"}),
        frozenset({f"{CANARY}-2", "another-one"}),
        frozenset({"stock-0", "stock-copy"}),
    }
    assert "stock-0</code>: 1 record, public ones too" in page
    with fakes(tmp_path / "temporary"):
        status, output, complaint = people.command("aliases")
        told = people.json("aliases")
    assert (status, CANARY in (output + complaint).lower()) == (0, False)
    assert told == {"groups": 4, "same_images": 2, "same_name": 2, "near_copies": 0, "subjects": 8, "shown": 0}
    assert {name: data for name, data in contents(people.root).items() if "ledger.db" not in name} == before


def test_who_is_asked_for_is_found_in_any_spelling(people: FakePipeline, tmp_path: Path) -> None:
    page = page_of(people, tmp_path, "--subject", "K\u00d6NIG ANN\u00c9", "anne\u2010k\u00f6nig", f"{CANARY}-3")
    assert groups_in(page) == {
        frozenset({"K\u00d6NIG ANN\u00c9", "KONIG-ANNE"}),
        frozenset({"anne\u2010k\u00f6nig", "Ann\u00e9 K\u00f6nig", "ANNE.K\uff2fNIG"}),
    }
    assert "no record under this spelling" in page
    with fakes(tmp_path / "temporary"):
        told = people.json("aliases", "--subject", "K\u00d6NIG ANN\u00c9", f"{CANARY}-3")
    assert (told["asked"], told["without_records"], told["same_name"]) == (2, 1, 1)


def test_the_table_of_many_requests_is_asked_about_before_it_is_sent(people: FakePipeline, tmp_path: Path) -> None:
    table = tmp_path / "requests.csv"
    table.write_text(f"subject,sha256\n{PERSON},\n,{'a' * 64}\n{CANARY}-4,\n")
    assert groups_in(page_of(people, tmp_path, "--csv", str(table))) == {frozenset({PERSON, f"{CANARY.upper()}_1"})}
    table.write_text(f"sha256\n{'a' * 64}\n")
    with fakes(tmp_path / "temporary"):
        assert "names anybody" in people.refused(2, "aliases", "--csv", str(table))


def test_near_copies_of_named_people_are_listed_by_whose_they_are(pipeline: FakePipeline, tmp_path: Path) -> None:
    near = pipeline.json("plan", "--subject", PERSON, "--near", str(tmp_path / "near.html"))["near"]
    told = pipeline.json("aliases", "--subject", PERSON, "--near", "--page", str(tmp_path / "ids.html"))
    assert told["near_copies"] == near["people"] > 0
    page = (tmp_path / "ids.html").read_text(encoding="utf-8")
    assert all(PERSON in group and len(group) == 2 for group in groups_in(page))
    kept = {path.name for path in pipeline.layout.private_state.iterdir()}
    assert not any(name.startswith("near-") for name in kept)


def test_a_name_is_no_markup_and_no_formula(people: FakePipeline, tmp_path: Path) -> None:
    page = page_of(people, tmp_path, "--subject", "<B>=1-1<b>", "=1+1")
    assert "<b>" not in page
    assert "&lt;b&gt;=1 1&lt;/b&gt;" in page
    assert "<script" not in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--near",), "--near compares named people"),
        (("--subject", PERSON, "--near-share", "0.1"), "--near-share is for --near"),
        (("--subject", PERSON, "--near", "--near-share", "2"), "no share"),
        (("--subject", " "), "subject 1 of 1 is empty"),
        (("--subjects-from", f"/{CANARY}"), "cannot be read"),
        (("--page", f"/{CANARY}/x.html"), "--page: there is no such folder"),
    ],
)
def test_bad_input_is_refused_with_one_line(pipeline: FakePipeline, arguments: tuple[str, ...], said: str) -> None:
    assert said.replace("no share", "is not a share") in pipeline.refused(2, "aliases", *arguments)


def test_a_page_of_names_is_never_written_where_others_see_it(pipeline: FakePipeline, tmp_path: Path) -> None:
    there = tmp_path / "there.html"
    there.write_text("mine")
    for path, said in ((there, "the file exists"), (pipeline.root / "x.html", "within the project")):
        assert said in pipeline.refused(2, "aliases", "--page", str(path))
    assert there.read_text() == "mine"
