"""A CSV file as rows that know their physical lines, so that a refusal names a line and a deletion takes lines alone.

The delimiter is the first of DELIMITERS by which the header names all columns. Blanks after the commas of the header mean that
blanks after commas belong to no value. Quotes are read strictly: one that is not closed would swallow the rows after it.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmeraser.core.errors import ManifestError
from lmeraser.data.records import PRIVATE, PUBLIC, TEST, TRAIN
from lmeraser.sources.base import COLUMNS

BOM = b"\xef\xbb\xbf"
WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")  # UTF-16
DELIMITERS = (",", ";", "\t", "|")
LONGEST_FIELD = 2**31 - 1  # characters; a column of the user's own may hold a thumbnail


@dataclass(frozen=True)
class CsvFile:
    """Attributes:
    lines: every physical line with its end, as it came; `rows`: (first line, from 1; line after the last; values of COLUMNS, and
        of the columns that were asked for beside them).
    """

    lines: list[bytes]
    rows: list[tuple[int, int, list[str]]]

    def without(self, first_lines: set[int]) -> bytes:
        """The file without the rows that begin at these lines; every other byte stays."""
        erased_lines = {line for first, after, _ in self.rows if first in first_lines for line in range(first, after)}
        return b"".join(line for number, line in enumerate(self.lines, start=1) if number not in erased_lines)


def read_csv(data: bytes, name: str, also: Sequence[str] = ()) -> CsvFile:
    """Parse a manifest. Args: also: further columns. Raises: ManifestError with the physical line, and no value."""
    csv.field_size_limit(LONGEST_FIELD)
    lines = data.splitlines(keepends=True)  # of bytes: at \n, \r and \r\n alone
    text = _decoded(lines, data, name)
    first = next((place for place, line in enumerate(text) if line.strip()), 0)  # blank lines above the header
    header, delimiter, blanks = _header(text, first, name)
    for column in also:
        if header.count(column) != 1:
            raise ManifestError(
                f"{name} line {first + 1}: the header has column {column} {header.count(column)} times, expected once, since "
                "params.yaml names it; correct one of the two"
            )
    wanted = [header.index(column) for column in (*COLUMNS, *also)]
    rows = []
    for start, after, cells in _records(text, first, delimiter, blanks, name):
        if start == first + 1 or not cells:  # the header, a blank line
            continue
        if len(cells) > len(header):
            raise ManifestError(
                f"{name} line {start}: {len(cells)} fields, the header has {len(header)}; put quotes around a value with a "
                "comma, or remove the comma at the end"
            )
        if after - start > 1:
            _refuse_swallowed(text, start, after, cells, delimiter, name)
        rows.append((start, after, [cells[place] if place < len(cells) else "" for place in wanted]))
    return CsvFile(lines, rows)


def _decoded(lines: Sequence[bytes], data: bytes, name: str) -> list[str]:
    if data.startswith(WIDE_BOMS):
        raise ManifestError(f"{name} cannot be read as csv: it is UTF-16, expected UTF-8; save it as UTF-8 and retry")
    text = []
    for number, line in enumerate(lines, start=1):
        try:
            text.append((line.removeprefix(BOM) if number == 1 else line).decode())
        except UnicodeDecodeError as error:
            raise ManifestError(f"{name} line {number}: not UTF-8; save the file as UTF-8 and retry") from error
    return text


def _header(text: Sequence[str], first: int, name: str) -> tuple[list[str], str, bool]:
    """The header's names, the delimiter, and whether blanks follow it. Raises: ManifestError."""
    if not text:
        raise ManifestError(f"{name} is empty; expected the columns {','.join(COLUMNS)} in the header")
    headers: dict[str, list[str]] = {delimiter: [] for delimiter in DELIMITERS}
    problems = []
    for delimiter in DELIMITERS:
        try:
            _, _, cells = next(_records(text, first, delimiter, f"{delimiter} " in text[first], name))
            headers[delimiter] = [cell.strip().strip("\ufeff").strip() for cell in cells]
        except ManifestError as error:
            problems.append(error)
    if len(problems) == len(DELIMITERS):
        raise problems[0]
    chosen = max(DELIMITERS, key=lambda delimiter: len(set(headers[delimiter]) & set(COLUMNS)))  # the first of the best
    header = headers[chosen]
    where = f"{name} line {first + 1}"
    for column in COLUMNS:
        if header.count(column) > 1:
            raise ManifestError(f"{where}: the header has column {column} {header.count(column)} times; keep one of them")
        if column not in header:
            raise ManifestError(
                f"{where}: column {column} is missing; expected a header with the columns {','.join(COLUMNS)}, in lower case "
                "and separated by commas"
            )
    return header, chosen, f"{chosen} " in text[first]


def _records(text: Sequence[str], first: int, delimiter: str, blanks: bool, name: str) -> Iterator[tuple[int, int, list[str]]]:
    """Each record with its first physical line (from 1) and the line after its last."""
    reader = csv.reader(text[first:], delimiter=delimiter, skipinitialspace=blanks, strict=True)
    start = first + 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            after = first + reader.line_num + 1
            opened = _opened(text, start, after, delimiter, blanks)
            raise ManifestError(
                f"{name} line {opened}: a quoted value begins here and is not closed correctly (read up to line {after - 1}); "
                "close the quote, or write a quote inside quotes twice"
            ) from error
        after = first + reader.line_num + 1
        yield start, after, cells
        start = after


def _opened(text: Sequence[str], start: int, after: int, delimiter: str, blanks: bool) -> int:
    """The line where the last quoted value of a broken record opens."""
    opened, quoted = start, False
    fresh, closed = True, False  # at the beginning of a value; just behind a quote that may be the first of two
    for number in range(start, after):
        for letter in text[number - 1]:
            if letter == '"' and (quoted or fresh or closed):
                opened = number if fresh else opened
                quoted, closed, fresh = not quoted, quoted, False
            else:
                closed = False
                fresh = not quoted and (letter in (delimiter, "\n", "\r") or (fresh and blanks and letter == " "))
    return opened


def _refuse_swallowed(text: Sequence[str], start: int, after: int, cells: Sequence[str], delimiter: str, name: str) -> None:
    """Raise ManifestError if a value over several lines holds what only rows hold: its quote was meant as an inch."""
    for value in cells:
        if "\n" not in value and "\r" not in value:
            continue
        words = {word.strip() for line in value.splitlines() for word in line.split(delimiter)}
        if words & {PUBLIC, PRIVATE} and words & {TRAIN, TEST}:
            opened = next((place for place in range(start, after) if value.splitlines()[0] in text[place - 1]), start)
            raise ManifestError(
                f"{name} line {opened}: a quoted value begins here and holds what looks like other rows, up to line {after - 1}; "
                "close the quote, or remove it"
            )
