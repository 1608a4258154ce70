"""A feed of withdrawn consent: a CSV or Parquet file with the column `subject` and perhaps `date`, a row a person.

It may have millions of rows, most of them about people of whom no record is here: rows are handed on one by one, and none is
kept. A bad row is told by its line and without its content, and the others are read on, so that all are told at once.
"""

import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from lmeraser.core.errors import BadInputError
from lmeraser.core.names import MAX_LENGTH, normalise_name, unseen
from lmeraser.core.progress import track
from lmeraser.sources.csv_file import DELIMITERS, LONGEST_FIELD

SUBJECT, DATE = "subject", "date"
EXPECTED = f"a header with {SUBJECT} and perhaps {DATE}, nothing else, and a row a person"
DAY = re.compile(r"\d{4}-\d\d-\d\d(?:[T ].+)?")
TOLD = 10  # bad rows in one line
MAGIC = b"PAR1"
AT_ONCE = 65_536  # rows of a Parquet file, or bytes


@dataclass
class Feed:
    """Rows while they are read. Attributes: rows: how many were read; bad: what is wrong with the first `TOLD`, by line."""

    rows: int = 0
    bad_rows: int = 0
    bad: list[str] = field(default_factory=list)

    def refuse(self, unit: str, line: int, why: str) -> None:
        self.bad_rows += 1
        if len(self.bad) < TOLD:
            self.bad.append(f"{unit} {line}: {why}")

    def check(self) -> None:
        """Raise BadInputError, with the lines, if a row was bad."""
        if self.bad_rows:
            more = f"; and {self.bad_rows - len(self.bad)} more" if self.bad_rows > len(self.bad) else ""
            raise BadInputError(
                f"--feed: {self.bad_rows} of {self.rows} rows are bad, nothing was proposed: {'; '.join(self.bad)}{more}"
            )


def read_feed(name: str, feed: Feed) -> Iterator[tuple[str, date | None]]:
    """Each person by the manifest's rule, with the day on which consent was withdrawn. Bad rows are noted in `feed`.

    Args: name: of the file; `-` reads a CSV from standard input.
    Raises: BadInputError without the file's name if it is no such table.
    """
    with _opened(name) as stream:
        parquet = name != "-" and stream.read(len(MAGIC)) == MAGIC
        if name != "-":
            stream.seek(0)
        unit = "row" if parquet else "line"
        for line, subject, day in _parquet_rows(stream) if parquet else _csv_rows(stream, feed, _lines(name)):
            feed.rows += 1
            try:
                yield check_subject(subject), parse_day(day)
            except BadInputError as error:
                feed.refuse(unit, line, str(error))
    feed.check()


def check_subject(text: str) -> str:
    """A subject by the manifest's rule. Raises: BadInputError without it."""
    subject = normalise_name(text)
    if not subject:
        raise BadInputError("it names nobody")
    if len(subject) > MAX_LENGTH:
        raise BadInputError(f"the subject has more than {MAX_LENGTH} characters")
    if letter := unseen(subject):
        raise BadInputError(f"the subject has a control or invisible character ({letter})")
    return subject


def parse_day(text: str) -> date | None:
    """A day in UTC; None of nothing. Raises: BadInputError without the text unless it is YYYY-MM-DD or a time of ISO 8601."""
    given = text.strip()
    if not given:
        return None
    try:
        if not DAY.fullmatch(given):
            raise ValueError("another format")
        when = datetime.fromisoformat(given)
        return (when.astimezone(UTC) if when.tzinfo else when).date()
    except (ValueError, OverflowError) as error:
        raise BadInputError("its date is not YYYY-MM-DD (ISO 8601)") from error


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(Path(name).open("rb"))
        except OSError as error:
            raise BadInputError(f"the file of --feed cannot be read ({type(error).__name__}); expected {EXPECTED}") from error
        yield stream


def _lines(name: str) -> int:
    """How many lines a file has, for the progress; 0: nobody can tell."""
    if name == "-":
        return 0
    with Path(name).open("rb") as stream:
        return sum(piece.count(b"\n") for piece in iter(lambda: stream.read(AT_ONCE), b""))


def _csv_rows(stream: BinaryIO, feed: Feed, lines: int) -> Iterator[tuple[int, str, str]]:
    """Line, subject and date of each row that holds something."""
    csv.field_size_limit(LONGEST_FIELD)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    reader: Any = None
    try:
        first = text.readline()
        if not first.strip():
            raise BadInputError(f"--feed: the file is empty or begins with an empty line; expected {EXPECTED}")
        delimiter = max(DELIMITERS, key=first.count)  # the first of the best
        reader = csv.reader(chain([first], text), delimiter=delimiter, strict=True)
        header = [cell.strip() for cell in next(reader)]
        subject, day = _places(header)
        for cells in track(reader, lines, "feed", "row"):
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                feed.rows += 1
                feed.refuse("line", reader.line_num, f"it has {len(cells)} cells, the header {len(header)}")
                continue
            yield reader.line_num, cells[subject], cells[day] if day is not None else ""
    except UnicodeDecodeError as error:
        raise BadInputError("--feed: the file is not text in UTF-8; save it as UTF-8 and retry") from error
    except csv.Error as error:
        raise BadInputError(f"--feed: line {reader.line_num} is no CSV (a quote?); nothing was proposed") from error
    finally:
        text.detach()


def _places(header: Sequence[str]) -> tuple[int, int | None]:
    """Where subject and date stand. Raises: BadInputError for any other table."""
    if len(set(header)) < len(header) or not set(header) <= {SUBJECT, DATE} or SUBJECT not in header:
        raise BadInputError(f"--feed: the header has unknown, repeated or missing columns; expected {EXPECTED}")
    return header.index(SUBJECT), header.index(DATE) if DATE in header else None


def _parquet_rows(stream: BinaryIO) -> Iterator[tuple[int, str, str]]:
    import pyarrow.parquet as pq

    from lmeraser.sources.parquet_file import BROKEN, day_of

    try:
        file = pq.ParquetFile(stream)
        names = file.schema_arrow.names
        _places(names)
        batches = file.iter_batches(AT_ONCE, columns=names)
        line = 0
        for batch in track(batches, -(-file.metadata.num_rows // AT_ONCE), "feed", "batch"):
            days = batch.column(DATE).to_pylist() if DATE in names else [None] * batch.num_rows
            for subject, day in zip(batch.column(SUBJECT).to_pylist(), days, strict=True):
                line += 1
                exact = isinstance(subject, str | int)  # of a float no name is exact
                told = day if isinstance(day, str) else day_of(day) if hasattr(day, "isoformat") or day is None else "?"
                yield line, str(subject) if exact else "", told
    except BROKEN as error:
        raise BadInputError(
            f"--feed: the file cannot be read as Parquet ({type(error).__name__}); expected one complete file with {SUBJECT}"
        ) from error
