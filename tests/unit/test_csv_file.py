"""CSV: physical lines, strict quotes, whatever the dialect; and a deletion that takes lines and touches no other byte."""

import csv
import io

import pytest
from builders import CANARY_SUBJECT, refused
from hypothesis import given, settings
from hypothesis import strategies as st

from lmeraser.core.errors import ManifestError
from lmeraser.sources.base import COLUMNS
from lmeraser.sources.csv_file import BOM, CsvFile, read_csv

HEADER = [*COLUMNS, "note"]
NOTES = st.text(st.sampled_from('ab ,;"\n\té'), max_size=8)


def write(rows: list[list[str]], header: list[str] = HEADER, eol: str = "\n", delimiter: str = ",", quoting: int = 0) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator=eol, delimiter=delimiter, quoting=quoting).writerows([header, *rows])  # type: ignore[arg-type]
    return stream.getvalue()


def row(number: int, note: str = "") -> list[str]:
    return [f"{number}.png", "cat", f"person-{number}", "private", "train", note]


def read(text: str | bytes) -> CsvFile:
    return read_csv(text if isinstance(text, bytes) else text.encode(), "manifest.csv")


@given(
    st.lists(NOTES, min_size=1, max_size=5),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.booleans(),
    st.data(),
)
def test_rows_are_read_in_every_dialect_and_go_without_touching_another_byte(
    notes: list[str], eol: str, delimiter: str, quoting: int, marked: bool, data: st.DataObject
) -> None:
    rows = [row(number, note) for number, note in enumerate(notes)]
    text = (BOM if marked else b"") + write(rows, eol=eol, delimiter=delimiter, quoting=quoting).encode()
    manifest = read(text)
    assert [values for _, _, values in manifest.rows] == [line[:5] for line in rows]
    erased = data.draw(st.sets(st.integers(0, len(rows) - 1)))
    left = [line for number, line in enumerate(rows) if number not in erased]
    wanted = (BOM if marked else b"") + write(left, eol=eol, delimiter=delimiter, quoting=quoting).encode()
    assert manifest.without({manifest.rows[number][0] for number in erased}) == wanted


@settings(max_examples=150)
@given(st.permutations(HEADER), st.integers(0, 5), st.integers(0, 3), st.sampled_from([None, 1, 2]), st.booleans())
def test_quote_that_is_not_closed_swallows_nobody(
    header: list[str], column: int, place: int, closed: int | None, at_the_end: bool
) -> None:
    """A quote is put before a value, and maybe behind a value some rows below: all rows are read, or the line is named."""
    lines = []
    for number in range(4):
        cells = [dict(zip(HEADER, row(number, "12 inch"), strict=True))[name] for name in header]
        if number == place:
            cells[column] = '"' + cells[column]
        if closed and number == place + closed:
            cells[column] += '"' if at_the_end else '"x'
        lines.append(",".join(cells))
    count, message = 4, f"line {place + 2}:"
    try:
        count = len(read("\n".join([",".join(header), *lines])).rows)
    except ManifestError as error:
        message = str(error)
    assert count == 4
    assert f"line {place + 2}:" in message


def test_line_of_a_row_is_the_physical_one_below_quoted_line_breaks() -> None:
    text = write([row(0, "one\r\ntwo\nthree"), row(1), row(2, "x")])
    assert [first for first, _, _ in read(text).rows] == [2, 5, 6]


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        ("3.png,cat,a,b,private,train,x", 4),
        ('3.png,cat,"a"b,private,train,x', 4),
        ('3.png,cat,"a,private,train,x\n4.png,cat,b,private,train,y', 4),
        ('3.png,cat,a,private,train,"x\ny" z', 4),
        ('3.png,"c\nd",a,private,train,"x\n', 5),
        ("3.png,cat,a,private,train,,", 4),
    ],
    ids=["comma", "behind a quote", "open to the end", "closed and more", "opened in a later line", "comma at the end"],
)
def test_damaged_place_is_told_by_its_physical_line_and_by_nothing_else(damage: str, line: int) -> None:
    text = write([["1.png", "cat", CANARY_SUBJECT, "private", "train", ""], row(2)]) + damage
    assert f"manifest.csv line {line}: " in refused(ManifestError, lambda: read(text))


def test_bytes_that_are_not_utf8_are_told_by_their_line() -> None:
    text = write([row(0, "one\ntwo")]).encode() + "CANARY-é".encode("latin-1") + b",cat,a,private,train,x\n"
    assert "line 4: not UTF-8" in refused(ManifestError, lambda: read(text))
    assert "UTF-16" in refused(ManifestError, lambda: read(text.decode("latin-1").encode("utf-16")))


@pytest.mark.parametrize("column", COLUMNS)
def test_column_that_stands_twice_is_refused_and_a_foreign_one_is_not(column: str) -> None:
    assert f"column {column} 2 times" in refused(ManifestError, lambda: read(write([[*row(0), "x"]], [*HEADER, column])))
    assert len(read(write([[*row(0), "x", ""]], [*HEADER, "note", ""])).rows) == 1


def test_blanks_behind_the_commas_belong_to_no_value() -> None:
    text = 'path, label, subject, visibility, split, note\n0.png, cat, "person, 0", private, train, "x, y"\n'
    assert [values for _, _, values in read(text).rows] == [["0.png", "cat", "person, 0", "private", "train"]]


@pytest.mark.parametrize(
    "text", ["# made by hand\n" + write([row(0)]), "sep=;\n" + write([row(0)], delimiter=";"), "a b c\n1 2 3\n"]
)
def test_first_line_that_is_no_header_is_told(text: str) -> None:
    assert "line 1: column path is missing" in refused(ManifestError, lambda: read(text))


def test_long_value_in_a_column_of_the_users_own_is_no_matter() -> None:
    assert len(read(write([row(0, "x" * 300_000)])).rows) == 1
