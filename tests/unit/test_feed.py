"""A feed of withdrawn consent: any length in little memory, bad rows told by their lines and without their content."""

import io
import sys
import tracemalloc
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from builders import assert_clean, refused
from hypothesis import example, given
from hypothesis import strategies as st

from lmeraser.core.errors import BadInputError
from lmeraser.sources.feed import Feed, parse_day, read_feed

SEVENTH = date(2026, 11, 7)


def rows_of(path: Path | str) -> list[tuple[str, date | None]]:
    return list(read_feed(str(path), Feed()))


def written(folder: Path, text: str | bytes) -> Path:
    (folder / "feed.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / "feed.csv"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_rows_come_as_they_stand_with_names_by_the_manifests_rule(tmp_path: Path, delimiter: str) -> None:
    lines = ["\ufeffdate,subject", "2026-11-07, ada ", "", "2026-11-06T23:30:00-01:00,e\u0301va", ",cem"]
    path = written(tmp_path, "\r\n".join(line.replace(",", delimiter) for line in lines))
    assert rows_of(path) == [("ada", SEVENTH), ("\u00e9va", SEVENTH), ("cem", None)]


def test_standard_input_is_read_as_a_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"subject\nada\n")))
    assert rows_of("-") == [("ada", None)]


@pytest.mark.parametrize("days", [[SEVENTH, None], ["2026-11-07", None], [datetime(2026, 11, 7, 5, tzinfo=UTC), None]])
def test_parquet_has_text_dates_or_times(tmp_path: Path, days: list[object]) -> None:
    pd.DataFrame({"subject": ["ada", "ben"], "date": days}).to_parquet(tmp_path / "any-name")
    assert rows_of(tmp_path / "any-name") == [("ada", SEVENTH), ("ben", None)]


def test_whole_numbers_are_names_in_parquet_and_floats_are_none(tmp_path: Path) -> None:
    path = tmp_path / "feed.parquet"
    pd.DataFrame({"subject": [1008, 7]}).to_parquet(path)
    assert rows_of(path) == [("1008", None), ("7", None)]
    pd.DataFrame({"subject": [1008.0, None]}).to_parquet(path)
    assert "row 1: it names nobody" in refused(BadInputError, lambda: rows_of(path))


def test_header_alone_says_that_nobody_withdrew(tmp_path: Path) -> None:
    assert rows_of(written(tmp_path, "subject,date\n")) == []


BAD = {
    "empty": (b"", "the file is empty"),
    "no header": (b"\nsubject\nCANARY\n", "begins with an empty line"),
    "unknown column": (b"subject,reason\nada,CANARY\n", "unknown, repeated or missing columns"),
    "no subject": (b"name\nCANARY\n", "unknown, repeated or missing columns"),
    "twice": (b"subject,subject\nCANARY,CANARY\n", "unknown, repeated or missing columns"),
    "half a row": (b"subject,date\nada,2026-11-07\nCANARY\n", "line 3: it has 1 cells, the header 2"),
    "too many cells": (b"subject\nada\nCANARY,2026\n", "line 3: it has 2 cells, the header 1"),
    "nobody": (b"subject,date\n,2026-11-07\n", "line 2: it names nobody"),
    "invisible": ("subject\nCANARY\u200b\n".encode(), "line 2: the subject has a control or invisible character (U+200B)"),
    "long": (b"subject\n" + b"CANARY" * 200 + b"\n", "line 2: the subject has more than 1024 characters"),
    "other format": (b"subject,date\nCANARY,07.11.2026\n", "line 2: its date is not YYYY-MM-DD"),
    "american": (b"subject,date\nCANARY,11/07/2026\n", "line 2: its date is not YYYY-MM-DD"),
    "compact": (b"subject,date\nCANARY,20261107\n", "line 2: its date is not YYYY-MM-DD"),
    "no such day": (b"subject,date\nCANARY,2026-02-30\n", "line 2: its date is not YYYY-MM-DD"),
    "open quote": (b'subject\n"CANARY\nada\n', "is no CSV"),
    "not text": (b"subject\n\xff\xfeCANARY\n", "not text in UTF-8"),
    "half a file": (b"PAR1CANARY", "cannot be read as Parquet"),
}


@pytest.mark.parametrize(("data", "line"), BAD.values(), ids=list(BAD))
def test_bad_feed_is_one_line_that_names_nobody(tmp_path: Path, data: bytes, line: str) -> None:
    assert line in refused(BadInputError, lambda: rows_of(written(tmp_path, data)))


def test_missing_file_is_told_without_its_name(tmp_path: Path) -> None:
    assert "cannot be read (FileNotFoundError)" in refused(BadInputError, lambda: rows_of(tmp_path / "CANARY.csv"))
    assert "cannot be read (IsADirectoryError)" in refused(BadInputError, lambda: rows_of(tmp_path))


def test_all_bad_rows_are_counted_and_the_first_ten_told(tmp_path: Path) -> None:
    path = written(tmp_path, "subject,date\nada,\n" + "CANARY,soon\n" * 30)
    line = refused(BadInputError, lambda: rows_of(path))
    assert "30 of 31 rows are bad, nothing was proposed" in line
    assert "line 12: " in line
    assert "line 13: " not in line
    assert line.endswith("; and 20 more")


def test_a_hundred_thousand_rows_take_no_more_memory_than_a_thousand(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        path = written(tmp_path, "subject,date\n" + "".join(f"person-{number},2026-11-07\n" for number in range(rows)))
        tracemalloc.start()
        assert sum(1 for _ in read_feed(str(path), Feed())) == rows
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(100_000) < peak(1_000) + 2**20


@given(st.text(max_size=40))
@example("2026-11-07")
@example("2026-11-07T10:00:00.5+23:59")
@example("0001-01-01T00:00:00+23:00")
@example("2026-11-07 ")
def test_any_text_is_a_day_or_one_line(text: str) -> None:
    said, day = "", None
    try:
        day = parse_day(text)
    except BadInputError as error:
        said = str(error)
    assert said in ("", "its date is not YYYY-MM-DD (ISO 8601)")
    assert day is None or (isinstance(day, date) and not said)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("feeds")


@given(st.binary(max_size=120).map(lambda data: b"subject,date\n" + data) | st.binary(max_size=60))
def test_any_bytes_are_rows_or_one_line(folder: Path, data: bytes) -> None:
    try:
        rows_of(written(folder, data))
    except BadInputError as error:
        assert_clean(str(error))
