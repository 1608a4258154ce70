"""One rule for names: command line and manifest take the same for a person, and nobody is two by what nobody sees."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from builders import refused
from hypothesis import example, given
from hypothesis import strategies as st

from lmeraser.core.errors import BadInputError, ManifestError, RequestError
from lmeraser.core.names import normalise_name, unseen
from lmeraser.erase.facts import normalise_subjects
from lmeraser.sources.base import make_table
from lmeraser.sources.splitting import check_table

INVISIBLE = {
    "zero-width blank": "\u200b",
    "left-to-right mark": "\u200e",
    "byte-order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "zero-width joiner": "\u200d",
    "word joiner": "\u2060",
    "tag letter": "\U000e0041",
    "private use": "\ue000",
    "unassigned": "\u0378",
    "noncharacter": "\uffff",
    "control": "\x1b",
    "tab": "\t",
    "next line": "\x85",
    "lone surrogate": "\ud800",
    "line separator": "\u2028",
    "no-break blank": "\u00a0",
    "narrow no-break blank": "\u202f",
    "wide blank": "\u3000",
    "variation selector": "\ufe0f",
    "grapheme joiner": "\u034f",
    "filler of Hangul": "\u3164",
    "empty Braille pattern": "\u2800",
}


def by_the_manifest(subjects: Sequence[str]) -> list[str] | None:
    """The subjects of a table's lines as `split` reads them; None if the table is refused."""
    paths, n = [f"{line}.png" for line in range(len(subjects))], len(subjects)
    table = make_table([paths, ["one"] * n, [*subjects], ["private"] * n, ["train"] * n], range(2, n + 2))
    try:
        check_table(table, "manifest.csv")
    except ManifestError:
        return None
    return list(table["subject"])


def by_the_command_line(subject: str) -> str | None:
    try:
        return normalise_subjects([subject])[0]
    except RequestError:
        return None


@pytest.mark.slow
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=8))
@example(["\u00a0anna\u00a0", "ann\u0061\u0308"])
@example(["", " ", "\u200banna"])
def test_manifest_and_command_line_have_one_rule_for_names(subjects: list[str]) -> None:
    """All that one takes the other takes together, to the same names; each that it refuses the other refuses by itself."""
    accepted = {subject: name for subject in subjects if (name := by_the_command_line(subject)) is not None}
    assert not accepted or by_the_manifest([*accepted]) == [*accepted.values()]
    assert all(by_the_manifest([subject]) is None for subject in {*subjects} - accepted.keys())


@pytest.mark.parametrize("place", ["inside", "in front", "behind"])
@pytest.mark.parametrize("letter", INVISIBLE.values(), ids=INVISIBLE)
def test_character_that_nobody_sees_makes_no_second_person(letter: str, place: str) -> None:
    subject = {"inside": f"an{letter}na", "in front": f"{letter}anna", "behind": f"anna{letter}"}[place]
    assert by_the_command_line(subject) in (None, "anna"), "refused, or trimmed to the one name"
    if place == "inside":
        assert unseen(subject) == f"U+{ord(letter):04X}"


@given(st.text(min_size=1, max_size=8))
def test_accepted_name_is_whole_to_see_and_is_its_own_normal_form(text: str) -> None:
    name = normalise_name(text)
    if unseen(name) is None:
        assert name.isprintable()
        assert normalise_name(name) == name == unicodedata.normalize("NFC", name)
        assert name == name.strip()


@pytest.mark.parametrize("column", ["subject", "label"])
def test_refusal_of_an_invisible_character_tells_its_line_and_its_code_and_no_name(column: str) -> None:
    values = {"subject": ["ok", "CANARY\u200banna"], "label": ["one", "one"]}
    if column == "label":
        values = {"subject": ["ok", "anna"], "label": ["one", "CANARY\u200e"]}
    table = make_table([["a", "b"], values["label"], values["subject"], ["public"] * 2, ["train"] * 2], [2, 7])
    message = refused(ManifestError, lambda: check_table(table, "manifest.csv"))
    assert f"column {column}: 1 of 2 rows" in message
    assert "line 7: U+200" in message


def test_names_that_look_foreign_are_kept() -> None:
    names = ("Zoé Müller", "山田太郎", "Ольга", "O'Brien-Smith", "أحمد", "person-1", "🙂", "a  b")
    normal = [unicodedata.normalize("NFC", name) for name in names]
    assert by_the_manifest(names) == [by_the_command_line(name) for name in names] == normal


def test_list_of_people_is_read_as_editors_save_it(tmp_path: Path) -> None:
    from flows.cli.subjects import read_lines

    text = "Zoé\r\n\r\nben\r\ncem"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "people.txt").write_bytes(text.encode(encoding))
        assert read_lines(str(tmp_path / "people.txt"), "--subjects-from") == ["Zoé", "ben", "cem"]
    (tmp_path / "people.txt").write_bytes("an\u2028na\rben".encode())
    assert read_lines(str(tmp_path / "people.txt"), "--subjects-from") == ["an\u2028na", "ben"], "no separator makes two of one"
    (tmp_path / "people.txt").write_bytes("CANARY-é".encode("latin-1"))
    refused(BadInputError, lambda: read_lines(str(tmp_path / "people.txt"), "--subjects-from"))
