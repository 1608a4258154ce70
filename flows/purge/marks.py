"""What the records of the erased people, and erased images, are known by: names, ids, digests and bytes, from the stored parts.

People are known by the name on the list, and by what their records in earlier parts show. A name that was corrected since
(`writer-9` to `Writer-9`) is no other person: parts from before hold the same images. What a retained record holds as well (the
same image) is no sign of them. An image that was erased alone names nobody: who has other records stays, and no name is a mark.
Whose last record it was is gone whole, and known by name too. So it is with a value that was corrected: it is known by the id of
the record as it was, because the image and both people may stay.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.purge.known import NOTHING, Known
from flows.purge.lineage import IsErased, Lineage
from lmeraser.core.layout import Layout
from lmeraser.data.columns import among
from lmeraser.data.records import read_table
from lmeraser.erase.corrections import ROW, Corrections
from lmeraser.erase.erased import ErasedImages
from lmeraser.prove.search_terms import SearchTerms, excerpts

NO_IMAGES = ErasedImages()
KNOWN_BY = ("id", "sha256", "subject")


class OldValues(NamedTuple):
    """What was corrected. Attributes: ids: of the records as they were, as far as they are known in clear; personal data."""

    corrections: Corrections
    ids: frozenset[str]


NO_OLD_VALUES = OldValues(Corrections(), frozenset())


@dataclass(repr=False)
class Marks:
    """Personal data. Attributes: old: ids of records as they were; aliases: earlier names; images: bytes, or pieces of them."""

    is_erased: IsErased
    old: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    aliases: set[str] = field(default_factory=set)
    images: set[bytes] = field(default_factory=set)

    def knows(self, subject: str) -> bool:
        return subject in self.aliases or self.is_erased(subject)


def retained_files(layout: Layout) -> list[Path]:
    """The public file and the parts, each a file or a folder of shards."""
    return [path for path in (layout.public, *sorted(layout.private.glob("*.parquet"))) if path.exists()]


def retained_values(layout: Layout, column: str) -> set[str]:
    """A column of all retained records."""
    return {value for path in retained_files(layout) for value in pc.unique(read_table(path, (column,))[column]).to_pylist()}


class Retained:
    """What retained records hold: each column is read once, when it is first asked for."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._columns: dict[str, list[pa.ChunkedArray]] = {}

    def without(self, column: str, values: Iterable[str]) -> set[str]:
        """Those values that no retained record has."""
        asked = set(values)
        if not asked:
            return asked
        if column not in self._columns:
            self._columns[column] = [read_table(path, (column,))[column] for path in retained_files(self._layout)]
        wanted = pa.array(sorted(asked), pa.string())
        for held in self._columns[column]:
            asked -= set(pc.unique(held.filter(pc.is_in(held, value_set=wanted))).to_pylist())
        return asked


def _read(lineage: Lineage, md5: str, columns: list[str]) -> pa.Table | None:
    """These columns, as far as they are there, of an object, wherever it can be read; None if it is nowhere, or no part.

    A part has the columns and types of our records.
    """
    for store, entry in lineage.copies.get(md5, ()):
        try:
            with store.open(entry.key) as stream:
                table = pq.ParquetFile(stream).read(columns)
        except (FileNotFoundError, pa.ArrowException, OSError, ValueError):
            continue
        known = set(KNOWN_BY) <= set(table.column_names) and all(pa.types.is_string(table[name].type) for name in KNOWN_BY)
        return table if known else None
    return None


def _rows(table: pa.Table, marks: Marks) -> pa.Table:
    """The erased people's records: under their name or an earlier one, or with an image of theirs."""
    subjects = [name for name in pc.unique(table["subject"]).to_pylist() if name is not None and marks.knows(name)]
    theirs = among(table["subject"], subjects)
    same = among(table["sha256"], marks.digests)
    return table.filter(pc.or_(theirs, same))


def _parts(lineage: Lineage, md5s: Iterable[str], columns: Iterable[str]) -> Iterator[tuple[str, pa.Table]]:
    for md5 in sorted(md5s):
        table = _read(lineage, md5, list(columns))
        if table is not None:
            yield md5, table


def _may_hold(lineage: Lineage, md5s: set[str], marks: Marks, known: Known) -> set[str]:
    """Which of these objects may hold a record of theirs, by what is known of them so far."""
    clean = known.clean(SearchTerms(texts=frozenset(marks.digests), ids=frozenset(marks.old)), marks.aliases)
    copies = lineage.copies
    return {md5 for md5 in md5s if md5 not in clean or not all(known.is_whole(*copy, md5) for copy in copies.get(md5, ()))}


def marks_of(
    lineage: Lineage,
    md5s: Iterable[str],
    is_erased: IsErased,
    known: Known = NOTHING,
    erased_images: ErasedImages = NO_IMAGES,
    old_values: OldValues = NO_OLD_VALUES,
) -> Marks:
    """What the records in these objects tell of the erased people.

    Each object is read once, without its images (they may lie in a bucket, and most hold nobody who is erased); those that hold
    a record of theirs once more, with them. An object is not read at all if it is known to hold neither their names nor an image
    of theirs: what was read shows further images and earlier names, so it is asked again until no object is added.
    Args: erased_images: with those in clear that the index is to be asked for.
    """
    waiting, parts, retained = set(md5s), dict[str, pa.Table](), Retained(lineage.layout)
    marks = Marks(is_erased, set(old_values.ids), digests=set(erased_images.clear))
    columns = dict.fromkeys((*KNOWN_BY, *(ROW if old_values.corrections else ())))
    while wanted := _may_hold(lineage, waiting, marks, known):
        waiting -= wanted
        parts |= dict(_parts(lineage, wanted, columns))
        marks = _marks_in(dict(sorted(parts.items())), is_erased, retained, erased_images, old_values)
    for md5, table in sorted(parts.items()):
        if _rows(table, marks).num_rows:
            marks.images |= _images(lineage, md5, marks)
    return marks


def _marks_in(
    parts: dict[str, pa.Table], is_erased: IsErased, retained: Retained, erased_images: ErasedImages, old_values: OldValues
) -> Marks:
    """What these parts tell, images aside."""
    marks = Marks(is_erased, set(old_values.ids), digests=set(erased_images.clear))
    with_labels = [table for table in parts.values() if old_values.corrections and set(ROW) <= set(table.column_names)]
    for table in with_labels:
        rows = table.take(pa.array([place for place, _ in old_values.corrections.old_rows(table)], pa.int64()))
        marks.old |= set(rows["id"].to_pylist())
        marks.aliases |= retained.without("subject", rows["subject"].to_pylist())
    marks.ids |= marks.old
    for table in parts.values() if erased_images else ():
        marks.digests |= set(erased_images.among(filter(None, pc.unique(table["sha256"]).to_pylist())))
    for table in parts.values():
        marks.digests |= retained.without("sha256", _rows(table, marks)["sha256"].to_pylist())
    for table in parts.values():
        subjects = set(_rows(table, marks)["subject"].to_pylist())
        marks.names |= {name for name in subjects if is_erased(name)}
        marks.aliases |= retained.without("subject", {name for name in subjects if not is_erased(name)})
    for table in parts.values():
        rows = _rows(table, marks)
        marks.ids |= set(rows["id"].to_pylist())
        marks.digests |= retained.without("sha256", rows["sha256"].to_pylist())
    return marks


def _images(lineage: Lineage, md5: str, marks: Marks) -> set[bytes]:
    """The erased people's images in one object, or pieces of them."""
    table = _read(lineage, md5, [*KNOWN_BY, "image"])
    if table is None or "image" not in table.column_names:
        return set()
    return {piece for image in _rows(table, marks)["image"].to_pylist() if image for piece in excerpts(image)}
