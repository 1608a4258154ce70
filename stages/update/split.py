"""split: where the source is as it was, an erasure only drops rows: the parts' own bytes without them are the new parts. A shard
that loses nobody is the file that it was. A label that was corrected is another one in its row; a subject moves to another file,
for which the source is read. Another source is read, but an image that was checked once is not decoded again."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from lmeraser.core.errors import ProjectError, RequestError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.data.columns import among
from lmeraser.data.records import FACTS, TRAIN, Part, Record, read_table, write_table
from lmeraser.erase.corrections import Corrections, Known, changes_of
from lmeraser.erase.erased import ErasedList, SubjectKey, SuppressionList
from lmeraser.erase.retained import record_files
from lmeraser.pipeline.before import Before
from stages.split import read_source


class Gone(NamedTuple):
    """Who and what leaves a shard. Attributes: digests: of images; corrected: what takes the place of records, by their ids."""

    subjects: list[str]
    digests: list[str]
    corrected: Mapping[str, Record]


Leaving = dict[int, Gone]  # of a part, by the number of the shard
NOBODY = Gone([], [], {})


@dataclass(frozen=True)
class Lists:
    """What keeps people, images and old values out. Attributes: parts: of the state before, in which right values are found."""

    suppression: SuppressionList
    corrections: Corrections
    parts: Mapping[str, Part]

    @cached_property
    def known(self) -> Known:
        tables = [read_table(part, ("label", "subject")) for part in self.parts.values()]
        values = (set[str]().union(*(table[name].unique().to_pylist() for table in tables)) for name in ("label", "subject"))
        return Known(self.suppression.key, *values) if self.suppression.key else Known(SubjectKey(b""), (), ())

    def gone(self, shard: Part) -> Gone | None:
        """What leaves a shard; of one that loses nothing no more is read than names, and digests where images are erased. None if
        a record comes to stand in another file, or nothing has its right value."""
        subjects = read_table(shard, ("subject",))["subject"].unique().to_pylist()
        erased = [subject for subject in subjects if self.suppression.is_erased(subject)]
        images, corrected = [], {}
        if self.suppression.images:
            images = self.suppression.images.among(read_table(shard, ("sha256",))["sha256"].unique().to_pylist())
        if self.corrections.subjects_among(subjects):
            records = read_table(shard, FACTS)
            try:
                changes = changes_of(self.corrections, records, self.known)
            except RequestError:
                return None
            if any(change.old.subject != change.new.subject for change in changes):
                return None
            corrected = {change.old.id: change.new for change in changes}
        return Gone(erased, images, corrected)


def update(before: Before, layout: Layout, params: Params, _: list[str]) -> bool:
    if before.parts is None:
        return _read_again(before, layout, params)
    parts = _parts(before, params)
    if parts is None or not before.is_whole(*(before.part(part) for part in before.parts)):
        return False
    suppression_list = SuppressionList.of(layout)
    lists = Lists(suppression_list, Corrections.of(suppression_list), parts)
    leaving: dict[str, Leaving] = {}
    for name in params.parts:
        leaves = _leaving(parts[name], lists) if name in before.parts else {}
        if leaves is None:
            return False
        leaving[name] = leaves
    if not _two_labels_are_left((parts[name], leaving[name]) for name in params.parts):
        return False  # the stage says so
    ErasedList.known(layout).remember(layout)
    for name, part in parts.items():
        if not before.carry_over(layout.part(name), layout, _new_files(part, leaving[name])):
            return False
    lost, files = sum(map(len, leaving.values())), sum(part.count for part in parts.values())
    say(f"split: {lost} of {files} files of private records without who left; nothing else was read")
    return True


def _parts(before: Before, params: Params) -> dict[str, Part] | None:
    """The parts of the state before; None if one is not divided as the params say."""
    try:
        parts = {name: Part.of(before.part(name)) for name in params.parts}
    except ProjectError:
        return None
    return parts if all(part.count == params.shards for part in parts.values()) else None


def _read_again(before: Before, layout: Layout, params: Params) -> bool:
    """Another source: its images are read, and those that the state before held are not decoded again."""
    files = record_files(before, params)
    if not before.is_whole(*files):
        return False
    known = {digest for path in files for digest in read_table(path, ("sha256",))["sha256"].to_pylist()}
    read_source(layout, params, known)
    return True


def _leaving(part: Part, lists: Lists) -> Leaving | None:
    """Who and what leaves a part; None if only the source tells."""
    leaving: Leaving = {}
    for shard in part.each():
        gone = lists.gone(shard)
        if gone is None:
            return None
        if any(gone):
            leaving[shard.numbers[0]] = gone
    return leaving


def _new_files(part: Part, leaving: Leaving) -> dict[str, Callable[[Path], None]]:
    """What writes the files that lose somebody, by their names as `Before.carry_over` has them."""
    shards = ((part.only([number]), erased) for number, erased in leaving.items())
    return {shard.files[0].name if part.divided else "": partial(_write_without, shard, erased) for shard, erased in shards}


def _without(table: pa.Table, erased: Gone) -> pa.Table:
    theirs = among(table["subject"], erased.subjects)
    those = among(table["sha256"], erased.digests)
    left = table.filter(pc.invert(pc.or_(theirs, those)))
    return (_with_right_values(left, erased.corrected) if erased.corrected else left).combine_chunks()


def _with_right_values(table: pa.Table, corrected: Mapping[str, Record]) -> pa.Table:
    """Records with the right labels, sorted by id; each once, also where one becomes another that is there."""
    rows = zip(*(table[name].to_pylist() for name in ("id", "label")), strict=True)
    values = [
        (corrected[identity].id, corrected[identity].label) if identity in corrected else (identity, label)
        for identity, label in rows
    ]
    for column, name in enumerate(("id", "label")):
        place = table.schema.get_field_index(name)
        new = pa.array([value[column] for value in values], table.schema.field(place).type)
        table = table.set_column(place, table.schema.field(place), new)
    first: dict[str, int] = {}
    for place, (identity, _) in enumerate(values):
        first.setdefault(identity, place)
    return table.take(pa.array([place for _, place in sorted(first.items())], pa.int64()))


def _write_without(shard: Part, erased: Gone, path: Path) -> None:
    write_table(path, _without(read_table(shard), erased))


def _two_labels_are_left(parts: Iterable[tuple[Part, Leaving]]) -> bool:
    """What `check_shares` asks of the private records."""
    labels: set[str] = set()
    for part, leaving in parts:
        for shard in part.each():
            table = _without(read_table(shard, FACTS), leaving.get(shard.numbers[0], NOBODY))
            labels |= set(table.filter(pc.equal(table["split"], TRAIN))["label"].unique().to_pylist())
            if len(labels) > 1:
                return True
    return False
