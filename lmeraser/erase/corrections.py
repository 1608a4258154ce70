"""Corrected records: a label or a subject that was wrong (GDPR, article 16). The old value is kept out for ever, as who is erased
is, and the record is there with the right one.

A correction names values by keyed hashes alone: which value is meant is found among those that the source has. So the list
tells nobody what was wrong and what is right, and a corrected record is, byte for byte, the one that a source with the right
value gives.

    corrected:SUBJECT:ROW:LABEL:TO_SUBJECT:TO_ROW          each 64 hex digits
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from lmeraser.core.digest import sha256
from lmeraser.core.errors import ImageError, ManifestError, RequestError
from lmeraser.data.columns import among
from lmeraser.data.records import PRIVATE, Record, record_id
from lmeraser.erase.erased import CORRECTED, SubjectKey, SuppressionList, corrections_among
from lmeraser.sources.base import Source

if TYPE_CHECKING:
    import pandas as pd  # half a second, which who only reads a list need not wait for

ROW = ("sha256", "label", "subject")  # what a value is a value of: an image, under a label, of a subject
_FORM = re.compile(CORRECTED + ":".join(["([0-9a-f]{64})"] * 5))


class Values(NamedTuple):
    """What is said of an image, in clear."""

    label: str
    subject: str


@dataclass(frozen=True, order=True)
class Correction:
    """Keyed hashes. Attributes: subject: whose record it was; row: of the image with the old values; label, to_subject: the right
    values; to_row: of the image with these."""

    subject: str
    row: str
    label: str
    to_subject: str
    to_row: str

    @property
    def pseudonym(self) -> str:
        """As requests and lists have it."""
        return CORRECTED + ":".join(astuple(self))

    @classmethod
    def of(cls, key: SubjectKey, digest: str, old: Values, new: Values) -> "Correction":
        return cls(
            key.pseudonym(old.subject),
            key.row_pseudonym(digest, *old),
            key.label_pseudonym(new.label),
            key.pseudonym(new.subject),
            key.row_pseudonym(digest, *new),
        )

    @classmethod
    def parse(cls, pseudonym: str) -> "Correction":
        """Raises: ValueError if it is none."""
        form = _FORM.fullmatch(pseudonym)
        if form is None:
            raise ValueError("no correction")
        return cls(*form.groups())


class Corrections:
    """Those among pseudonyms, for who asks which records they are about. False while there is none."""

    def __init__(self, pseudonyms: Iterable[str] = (), key: SubjectKey | None = None) -> None:
        self.all = sorted(map(Correction.parse, corrections_among(pseudonyms)))
        self._key = key if self.all else None
        self._by_row = {correction.row: correction for correction in self.all}
        self._subjects = {correction.subject for correction in self.all}

    @classmethod
    def of(cls, suppression_list: SuppressionList) -> "Corrections":
        """All that a list knows."""
        return cls(suppression_list.pseudonyms, suppression_list.key)

    def __bool__(self) -> bool:
        return bool(self.all)

    def subjects_among(self, subjects: Iterable[str]) -> list[str]:
        """Those of whom a record was corrected; costs an HMAC for each, and nothing while there is no correction."""
        return [subject for subject in subjects if self._key.pseudonym(subject) in self._subjects] if self._key else []

    def correction_of(self, digest: str, old: Values) -> Correction | None:
        """What an image with these values is corrected to; None if nobody corrected it."""
        return self._by_row.get(self._key.row_pseudonym(digest, *old)) if self._key else None

    def old_rows(self, table: pa.Table) -> list[tuple[int, Correction]]:
        """Which rows of a table of records (columns ROW) have a value that was corrected, and to what."""
        if self._key is None or not table.num_rows:
            return []
        subjects = self.subjects_among(filter(None, pc.unique(table["subject"]).to_pylist()))
        theirs = among(table["subject"], subjects)
        places = pc.indices_nonzero(theirs).to_pylist() if subjects else []
        rows = zip(places, *(table[name].take(pa.array(places, pa.int64())).to_pylist() for name in ROW), strict=True)
        found = ((place, self.correction_of(digest, Values(label, subject))) for place, digest, label, subject in rows)
        return [(place, correction) for place, correction in found if correction is not None]

    def old_ids(self, table: pa.Table) -> set[str]:
        """The ids (column `id`) of the rows that have a value that was corrected."""
        places = pa.array([place for place, _ in self.old_rows(table)], pa.int64())
        return set(table["id"].take(places).to_pylist())


class Known:
    """The values that a source or a built state has, by their keyed hashes: what a correction means is found among them."""

    def __init__(self, key: SubjectKey, labels: Iterable[str], subjects: Iterable[str]) -> None:
        self._label_of = {key.label_pseudonym(label): label for label in labels}
        self._subject_of = {key.pseudonym(subject): subject for subject in subjects}

    def values(self, correction: Correction) -> Values | None:
        """The right values in clear; None if nothing has them."""
        label, subject = self._label_of.get(correction.label), self._subject_of.get(correction.to_subject)
        return None if label is None or subject is None else Values(label, subject)


class CorrectedSource(Source):
    """A source with the right values in the place of corrected ones: everything else is the source's."""

    def __init__(self, source: Source, suppression_list: SuppressionList) -> None:
        self.name, self.unit = source.name, source.unit
        self._source, self._list = source, suppression_list
        self._corrections = Corrections.of(suppression_list)

    def image(self, path: str) -> bytes:
        return self._source.image(path)

    def table(self) -> "pd.DataFrame":
        """Raises: ManifestError if a right value is nowhere in the table; ImageError, with the line, for an image of somebody of
        whom a record was corrected."""
        table = self._source.table()
        if not self._corrections or self._list.key is None:
            return table
        people = self._corrections.subjects_among(table["subject"].unique())
        rows = table.index[table["subject"].isin(people)]
        known = Known(self._list.key, table["label"].unique(), table["subject"].unique())
        digests = {row: self._digest(table.loc[row, "path"], table.loc[row, "line"]) for row in rows}
        gone, lost = [], 0
        for row, digest in digests.items():
            old = Values(str(table.loc[row, "label"]), str(table.loc[row, "subject"]))
            for correction in self._chain(digest, old, known):
                new = known.values(correction)
                if new is not None:
                    table.loc[row, ["label", "subject"]] = list(new)
                elif correction.to_subject in self._list.pseudonyms:
                    gone.append(row)  # of somebody who was erased since, and whom the source names no more
                else:
                    lost += 1
        if lost:
            raise ManifestError(
                f"{self.name}: {lost} of {len(table)} rows have a value that was corrected, and no row has the right one; write "
                "the right values into these rows"
            )
        return table.drop(index=gone).reset_index(drop=True)

    def _chain(self, digest: str, old: Values, known: Known) -> Iterator[Correction]:
        """What a row is corrected to, and what that was corrected to later, and so on. Corrections never lead in a circle."""
        values: Values | None = old
        for _ in self._corrections.all:
            correction = self._corrections.correction_of(digest, values) if values else None
            if correction is None:
                return
            yield correction
            values = known.values(correction)

    def _digest(self, path: str, line: int) -> str:
        try:
            return sha256(self._source.image(path))
        except ImageError as error:
            raise ImageError(f"{self.name} {self.unit} {line}: {error}") from error


def corrected(source: Source, suppression_list: SuppressionList) -> Source:
    """A source as the pipeline reads it: the very source while nothing was corrected."""
    return CorrectedSource(source, suppression_list) if Corrections.of(suppression_list) else source


def as_corrected(record: Record, values: Values) -> Record:
    """A private record with the right values."""
    identity = record_id(record.sha256, values.subject, values.label, PRIVATE, record.split)
    return replace(record, id=identity, label=values.label, subject=values.subject)


class Change(NamedTuple):
    """A private record as it is, and as it will be."""

    old: Record
    new: Record


def changes_of(corrections: Corrections, records: pa.Table, known: Known) -> list[Change]:
    """The records that corrections are about, in their order. Args: records: private ones; known: who and what there is.

    Raises: RequestError if nothing has a right value.
    """
    rows = corrections.old_rows(records)
    table = records.take(pa.array([place for place, _ in rows], pa.int64())).to_pylist()
    changes, unknown = [], 0
    for row, (_, correction) in zip(table, rows, strict=True):
        new, old = known.values(correction), Record(**row)
        if new is None:
            unknown += 1
        else:
            changes.append(Change(old, as_corrected(old, new)))
    if unknown:
        raise RequestError(f"the right value of {unknown} records is nobody's here: no record has that label, or that person")
    return changes


def contradicting(corrections: Sequence[Correction], done: Iterable[Correction], waiting: Iterable[Correction]) -> int:
    """How many corrections do not go together with others: another value for the same row, a value that was taken away, or, while
    they wait, one that they give. Args: done: whose value is out; waiting: of open requests."""
    open_ones = list(waiting)
    others = {other.row: other for other in (*done, *open_ones)}
    given = {other.to_row for other in open_ones}
    return sum(
        others.get(correction.row, correction) != correction or correction.to_row in others or correction.row in given
        for correction in corrections
    )
