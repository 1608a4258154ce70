"""Near copies and people's decision: a private page shows them, and just those that a human chose go along, for this plan."""

import os
import re
import stat
from html import unescape
from pathlib import Path

import pytest
from builders import Row, png, refused
from fake_pipeline import CANARY, FakePipeline, everybody
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.digest import sha256
from lmeraser.core.errors import BadInputError, StepFailedError
from lmeraser.erase.near import Choices, offer

PERSON, FRIEND = f"{CANARY}-1", f"{CANARY}-2"
PLAN = "5eed" * 8
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)


def digests_of(*people: str) -> set[str]:
    return {sha256(png(row.seed)) for row in everybody() if row.subject in people}


def page_of(pipeline: FakePipeline, folder: Path, *arguments: str) -> str:
    page = folder / "near.html"
    page.unlink(missing_ok=True)
    pipeline.json("plan", *(arguments or ("--subject", PERSON)), "--near", str(page))
    return page.read_text(encoding="utf-8")


def offered(page: str) -> str:
    """The text that a page offers."""
    (text,) = re.findall(r"<textarea[^>]*>(.*?)</textarea>", page, re.DOTALL)
    return unescape(text)


def listed(page: str) -> set[str]:
    return set(re.findall(r"[0-9a-f]{64}", offered(page)))


def choosing(text: str, *digests: str) -> str:
    for digest in digests:
        assert f"# {digest}" in text
        text = text.replace(f"# {digest}", digest)
    return text


# the text


@given(st.lists(DIGESTS, min_size=1, max_size=6, unique=True), st.data())
def test_choices_are_those_lines_whose_sign_was_taken_away(digests: list[str], data: st.DataObject) -> None:
    text = offer(PLAN, [(f"image {number}: features, other person 1", digest) for number, digest in enumerate(digests)])
    refused(BadInputError, lambda: Choices.read(text, "--with-near"))  # nobody decided yet
    chosen = data.draw(st.lists(st.sampled_from(digests), min_size=1, unique=True))
    assert set(Choices.read(choosing(text, *chosen), "--with-near").images) == set(chosen)
    shown = choosing(text, *chosen).upper().replace("PLAN", "plan").replace("5EED", "5eed").replace("\n", " \r\n\r\n")
    assert set(Choices.read(shown, "--with-near").images) == set(chosen)


@given(DIGESTS, st.integers(1, 63))
def test_half_a_line_is_refused_by_its_number_and_without_its_content(digest: str, length: int) -> None:
    line = refused(BadInputError, lambda: Choices.read(f"plan {PLAN}\n{digest}\n{digest[:length]}", "--with-near"))
    assert "line 3" in line
    assert digest[:16] not in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no line of a plan"),
        ("# plan\n", "holds no line of a plan"),
        ("a" * 64, "line 1 is not the line of a plan"),
        (f"plan {PLAN[:-1]}\n", "line 1 is not the line of a plan"),
        (f"plan {PLAN}\n", "chooses no image"),
        (f"plan {PLAN}\nplan {PLAN}\n", "line 2 is no SHA-256"),
        (f"plan {PLAN}\n{CANARY}\n", "line 2 is no SHA-256"),
    ],
)
def test_text_that_is_no_choice_is_refused(text: str, said: str) -> None:
    assert said in refused(BadInputError, lambda: Choices.read(text, "--with-near"))


# the page


def test_page_is_private_and_shows_others_alone_with_pictures_and_without_a_name(pipeline: FakePipeline, tmp_path: Path) -> None:
    page = page_of(pipeline, tmp_path)
    assert stat.S_IMODE((tmp_path / "near.html").stat().st_mode) == 0o600
    others = {row for row in everybody() if row.subject != PERSON and row.label in ("one", "two")}
    assert listed(page) <= {sha256(png(row.seed)) for row in others}
    assert len(listed(page)) > 3
    assert not listed(page) & digests_of(PERSON)
    assert page.count("data:image/png;base64,") == 2 * len(listed(page))
    assert CANARY not in page
    assert "stock" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)|<script|url\(", page)  # nothing from elsewhere


def test_plan_tells_counts_alone_and_nothing_of_the_comparison_stays(pipeline: FakePipeline, tmp_path: Path) -> None:
    def kept() -> set[str]:
        return {path.name for path in pipeline.layout.private_state.iterdir() if not path.name.startswith("ledger.db")}

    before = kept()
    page = tmp_path / f"{CANARY}.html"
    status, output, complaint = pipeline.command("plan", "--subject", PERSON, "--near", str(page))
    assert status == 0
    assert CANARY not in output + complaint
    assert not any(digest in output + complaint for digest in listed(page.read_text()))
    assert kept() == before
    told = pipeline.json("plan", "--subject", PERSON, "--near", str(tmp_path / "second.html"))["near"]
    assert told["found"] == told["shown"] == len(listed(page.read_text()))
    assert told["public"] == sum(row.visibility == "public" and row.label == "one" for row in everybody())
    assert pipeline.requests() == []


def test_who_is_erased_or_about_to_be_is_no_candidate(pipeline: FakePipeline, tmp_path: Path) -> None:
    picture = next(sha256(png(row.seed)) for row in everybody() if row.subject == f"{CANARY}-4" and row.label == "one")
    assert listed(page_of(pipeline, tmp_path)) >= {picture}
    assert listed(page_of(pipeline, tmp_path)) & digests_of(FRIEND)
    pipeline.submit(FRIEND)
    pipeline.submit(images=[picture])
    assert not listed(page_of(pipeline, tmp_path)) & {picture, *digests_of(FRIEND)}
    pipeline.resume()
    page = page_of(pipeline, tmp_path)
    assert not listed(page) & {picture, *digests_of(FRIEND)}
    assert listed(page)


def test_page_shows_the_same_bytes_under_another_name_and_how_many_records_have_them(tmp_path: Path) -> None:
    from fake_pipeline import fakes

    (tmp_path / "temporary").mkdir()
    with fakes(tmp_path / "temporary"):
        twice = [Row("elsewhere", "one", seed=10), Row("again", "two", seed=20), Row("again", "one", seed=20)]
        pipeline = FakePipeline.build(tmp_path / "fake", [*everybody(), *twice], remote=False)
        page = page_of(pipeline, tmp_path)
        told = pipeline.json("plan", "--subject", PERSON, "--near", str(tmp_path / "second.html"))["near"]
    assert told["same_bytes"] == 1
    assert page.count("<strong>the same bytes</strong>") == 1
    assert "3 records." in page


def test_page_where_it_may_not_lie_is_refused_before_anything_is_asked(pipeline: FakePipeline, tmp_path: Path) -> None:
    plan = ("plan", "--subject", PERSON, "--near")
    there = tmp_path / f"{CANARY}.html"
    there.write_text("kept")
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    (tmp_path / "link.html").symlink_to(tmp_path / "nothing")
    (tmp_path / "inside").symlink_to(pipeline.root)
    for page, said in (
        (there, "the file exists"),
        (tmp_path / "link.html", "the file exists"),
        (tmp_path, "the file exists"),
        (tmp_path / CANARY / "near.html", "there is no such folder"),
        (pipeline.root / "near.html", "within the project"),
        (pipeline.root / ".lmeraser" / "near.html", "within the project"),
        (tmp_path / "inside" / "near.html", "within the project"),
        (tmp_path / "repository" / "near.html", "another git repository"),
        (tmp_path / "repository" / ".git" / "near.html", "another git repository"),
    ):
        assert said in pipeline.refused(2, *plan, str(page))
    assert there.read_text() == "kept"
    assert not list(pipeline.root.rglob("near*.html"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--subject", CANARY), "unknown"),
        ((), "no subject was named"),
        (("--add", CANARY), "--add plans who comes"),
        (("--subject", PERSON, "--near-share", "1"), "--near-share is not a share"),
        (("--subject", PERSON, "--near-share", "nan"), "--near-share is not a share"),
        (("--subject", PERSON, "--with-near", CANARY), "give one of them"),
    ],
)
def test_bad_question_is_refused_in_one_line_and_no_page_is_left(
    pipeline: FakePipeline, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in pipeline.refused(2, "plan", *arguments, "--near", str(tmp_path / "near.html"))
    assert not (tmp_path / "near.html").exists()
    assert "--near-share is for --near" in pipeline.refused(2, "plan", "--subject", PERSON, "--near-share", "0.1")


def test_project_that_is_not_built_is_refused_and_no_page_is_left(pipeline: FakePipeline, tmp_path: Path) -> None:
    (pipeline.root / "artifacts" / "skeleton" / "skeleton.safetensors").unlink()
    pipeline.refused(2, "plan", "--subject", PERSON, "--near", str(tmp_path / "near.html"))
    assert not (tmp_path / "near.html").exists()


def test_question_that_a_killed_plan_left_goes_with_the_next_purge_and_one_that_failed_leaves_none(
    pipeline: FakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = pipeline.layout.near("5eed")
    left.write_text("{}")
    old, new = (pipeline.layout.private_state / f".writing-{name}" for name in ("old", "new"))
    for draft in (old, new):
        draft.write_text("{}")
    os.utime(old, (0, 0))  # of a version whose drafts had no name of their own

    def fail(*_: object, **__: object) -> None:
        raise StepFailedError("the stage failed; retry")

    with monkeypatch.context() as patch:
        patch.setattr("flows.run.questions.run_chains", fail)
        assert "the stage failed" in pipeline.refused(1, "plan", "--subject", PERSON, "--near", str(tmp_path / "near.html"))
    assert not (tmp_path / "near.html").exists()
    assert [path.name for path in pipeline.layout.private_state.glob("near-*")] == [left.name]
    pipeline.json("forget", "--subject", PERSON)
    assert [path.exists() for path in (left, old, new)] == [False, False, True], "somebody may write the new one"


# the choice


def test_chosen_near_copies_go_along_and_the_others_stay(pipeline: FakePipeline, tmp_path: Path) -> None:
    picture = next(sha256(png(row.seed)) for row in everybody() if row.subject == FRIEND and row.label == "one")
    choices = tmp_path / f"{CANARY}.txt"
    choices.write_text(choosing(offered(page_of(pipeline, tmp_path)), picture), encoding="utf-8")
    planned = pipeline.json("plan", "--subject", PERSON, "--with-near", str(choices))
    assert (planned["subjects"], planned["images"], planned["records_removed"], planned["owners"]) == (1, 1, 3, 1)
    identity = "5eed0000-0000-4000-8000-000000000001"
    arguments = ("--subject", PERSON, "--with-near", str(choices), "--request-id", identity)
    done = pipeline.json("forget", *arguments)
    assert (done["state"], done["records_removed"]) == ("certified", 3)
    assert pipeline.json("lookup", "--sha256", picture)["answer"] == "erased"
    friend = pipeline.json("lookup", "--subject", FRIEND)
    assert (friend["answer"], friend["records"]) == ("present", 1)
    again = pipeline.json("forget", *arguments)  # the same id twice has one effect, though nobody can tell the plan any more
    assert (again["state"], again["certificate"]) == ("certified", done["certificate"])
    assert len(pipeline.requests()) == 1


def test_chosen_near_copy_in_public_records_needs_the_same_yes_as_any_public_image(
    pipeline: FakePipeline, tmp_path: Path
) -> None:
    public = next(sha256(png(row.seed)) for row in everybody() if row.visibility == "public" and row.label == "one")
    choices = tmp_path / "choices.txt"
    choices.write_text(choosing(offered(page_of(pipeline, tmp_path)), public), encoding="utf-8")
    assert "--include-public" in pipeline.refused(3, "plan", "--subject", PERSON, "--with-near", str(choices))
    planned = pipeline.json("plan", "--subject", PERSON, "--with-near", str(choices), "--include-public")
    assert (planned["public_removed"], planned["rebuild"]) == (1, True)


def test_choices_of_another_plan_or_of_unknown_images_are_refused_and_nothing_is_received(
    pipeline: FakePipeline, tmp_path: Path
) -> None:
    text = offered(page_of(pipeline, tmp_path))
    plan = text.splitlines()[0]
    picture, own = sorted(listed(page_of(pipeline, tmp_path)))[0], sorted(digests_of(PERSON))[0]
    for name, content, people, said in (
        ("another", choosing(text, picture), (FRIEND,), "is of another plan"),
        ("more", choosing(text, picture), (PERSON, f"{CANARY}-3"), "is of another plan"),
        ("unknown", f"{plan}\n{picture}\n{'0' * 64}\n", (PERSON,), "choice 2 of 2 is in no record"),
        ("own", f"{plan}\n{own}\n", (PERSON,), "choice 1 of 1 is in no record"),
        ("none", text, (PERSON,), "chooses no image"),
        ("half", f"{plan}\n{picture[:40]}", (PERSON,), "line 2 is no SHA-256"),
    ):
        (tmp_path / f"{CANARY}-{name}").write_text(content, encoding="utf-8")
        arguments = ("--subject", *people, "--with-near", str(tmp_path / f"{CANARY}-{name}"))
        for command in ("forget", "submit", "plan"):
            line = pipeline.refused(2, command, *arguments)
            assert said in line
            assert picture[:12] not in line
    assert "cannot be read" in pipeline.refused(2, "submit", "--subject", PERSON, "--with-near", str(tmp_path / CANARY))
    assert "--csv names everybody" in pipeline.refused(2, "submit", "--csv", CANARY, "--with-near", CANARY)
    assert pipeline.requests() == []


def test_choices_are_of_another_plan_once_the_records_changed(pipeline: FakePipeline, tmp_path: Path) -> None:
    page = page_of(pipeline, tmp_path)
    text = choosing(offered(page), sorted(listed(page) - digests_of(PERSON, FRIEND))[0])
    (tmp_path / "choices.txt").write_text(text, encoding="utf-8")
    pipeline.json("forget", "--sha256", sorted(digests_of(PERSON))[0])
    assert "another plan" in pipeline.refused(2, "forget", "--subject", PERSON, "--with-near", str(tmp_path / "choices.txt"))
