"""Many requests from one CSV file, one a row. Every row is looked at before the first is received. The same file twice has one
effect."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.cli.images import Table, digest_of, plain_digest
from flows.cli.subjects import read_bytes, text_of
from lmeraser.core.digest import sha256
from lmeraser.core.errors import BadInputError, LmeraserError

if TYPE_CHECKING:
    from flows.project import Project
    from flows.requests.intake import Named
    from lmeraser.erase.plan import Facts
    from lmeraser.erase.requests import Request

NAMING, ID = ("subject", "sha256", "path"), "request_id"
MOST = 10_000  # rows of a file
TOLD = 10  # bad rows in one line
EXPECTED = f"a header of {', '.join(NAMING)} (at least one of them) and perhaps {ID}"


@dataclass(frozen=True)
class Row:
    """Attributes: line: where it ends in the file, from 1; request_id: canonical."""

    line: int
    request_id: str
    named: "Named"


def receive_rows(project: "Project", file: str, include_public: bool) -> list[tuple[Row, "Request"]]:
    """Receive a request for each row; none if a row is bad. Raises: BadInputError with the lines of bad rows, and no content."""
    from flows.dvc import command as dvc
    from flows.requests import intake
    from flows.requests.quarantine import whole_layout
    from lmeraser.erase.facts import gather_facts

    data = read_bytes(file, "--csv", "a CSV file, UTF-8")
    layout = whole_layout(project)
    if layout == project.layout:
        dvc.require_current(layout)
    rows = _parsed(project, data, gather_facts(layout, project.params))
    received = []
    for row in rows:
        named = row.named
        received.append((row, intake.receive(project, named.subjects, row.request_id, include_public, named.images)))
    return received


def _parsed(project: "Project", data: bytes, facts: "Facts") -> list[Row]:
    table, key = Table(project), project.ensure_subject_key()
    known = _Known(project, facts)
    rows: list[Row] = []
    bad: list[str] = []
    seen: dict[str, int] = {}
    for line, cells in _cells(data):
        try:
            # No identity of its own: one that the file and the line give, so that the same file twice has one effect.
            own = key.pseudonym(f"csv {sha256(data)} {line}")[:32]
            row = Row(line, _request_id(cells.get(ID) or "", own), _named(cells, table))
            if row.request_id in seen:
                raise BadInputError(f"its request id is that of line {seen[row.request_id]}; give each row its own")
            seen[row.request_id] = line
            known.check(row)
            rows.append(row)
        except LmeraserError as error:
            bad.append(f"line {line}: {error}")
    if bad:
        more = f" and {len(bad) - TOLD} more" if len(bad) > TOLD else ""
        told = f"{'; '.join(bad[:TOLD])}{more}"
        raise BadInputError(f"--csv: {len(bad)} of {len(bad) + len(rows)} rows are bad, nothing was received: {told}")
    return rows


def subjects_in(file: str) -> list[str]:
    """Whom the rows of such a file name, each once. Raises: BadInputError, also if they name images alone."""
    data = read_bytes(file, "--csv", "a CSV file, UTF-8")
    subjects = dict.fromkeys(cells.get("subject", "").strip() for _, cells in _cells(data))
    subjects.pop("", None)
    if not subjects:
        raise BadInputError("--csv: no row names anybody; expected a column subject")
    return list(subjects)


def _request_id(given: str, own: str) -> str:
    import uuid

    from lmeraser.erase.requests import check_request_id

    return check_request_id(given.strip() or str(uuid.UUID(own, version=4)))


def _cells(data: bytes) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Each row that holds something, with the line where it ends. Raises: BadInputError if the file is no such table."""
    reader = csv.reader(io.StringIO(text_of(data, "--csv"), newline=""), strict=True)
    count = 0
    try:
        header = [name.strip() for name in next(reader, [])]
        known = set(NAMING) | {ID}
        if len(set(header)) < len(header) or not set(header) <= known or not set(header) & set(NAMING):
            raise BadInputError(f"--csv: the header has unknown, repeated or missing columns; expected {EXPECTED}")
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            count += 1
            if count > MOST:
                raise BadInputError(f"--csv: more than {MOST} rows; split the file")
            if len(cells) != len(header):
                raise BadInputError(f"--csv: line {reader.line_num} has {len(cells)} cells, the header {len(header)}")
            yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise BadInputError(f"--csv: line {reader.line_num} is no CSV (a quote?); nothing was received") from error
    if not count:
        raise BadInputError(f"--csv: no row; expected {EXPECTED}, and a row for each request")


def _named(cells: Mapping[str, str], table: Table) -> "Named":
    from flows.requests.intake import Named
    from lmeraser.erase.facts import normalise_subjects

    subject, digest, path = (cells.get(name, "").strip() for name in NAMING)
    subjects = normalise_subjects([subject]) if subject else []
    images = [*([plain_digest(digest, "its sha256")] if digest else []), *([digest_of(path, table, "its path")] if path else [])]
    if not subjects and not images:
        raise BadInputError("it names nobody and no image")
    return Named(tuple(subjects), tuple(dict.fromkeys(images)))


class _Known:
    """Who and what is there, and who is erased, looked up at once for all rows."""

    def __init__(self, project: "Project", facts: "Facts") -> None:
        from lmeraser.erase.facts import digests_of, subjects_of

        self._project = project
        self._key, self._erased = project.subject_key(), project.erased
        self._erased.check_key(self._key)
        self._subjects, self._digests = frozenset(subjects_of(facts)), frozenset(digests_of(facts))

    def check(self, row: Row) -> None:
        """Raises: RequestError if somebody is unknown or erased, or if the id is that of another request."""
        from lmeraser.core.errors import RequestError

        pseudonyms = {*map(self._key.pseudonym, row.named.subjects), *map(self._key.image_pseudonym, row.named.images)}
        there = self._project.ledger.find(row.request_id)
        if there is not None:
            if set(there.pseudonyms) != pseudonyms:
                raise RequestError("its request id was already received for other subjects; use a new id")
            return  # it has one effect, whatever became of it
        if pseudonyms & self._erased.pseudonyms:
            raise RequestError("it names somebody or an image that is already erased")
        if not self._subjects.issuperset(row.named.subjects) or not self._digests.issuperset(row.named.images):
            raise RequestError("it names somebody or an image that no record has")


def refused(received: Iterable[tuple[Row, "Request"]]) -> list[tuple[Row, "Request"]]:
    """Rows whose request was not accepted."""
    return [(row, request) for row, request in received if request.state in ("rejected", "blocked")]
