"""split: where the source is as it was, an erasure only drops rows: the parts' own bytes without them are the new parts. A shard
that loses nobody is the file that it was. Another source is read, but an image that was checked once is not decoded again."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.data.records import TRAIN, Part, read_table, write_table
from lmeraser.erase.erased import ErasedList, SuppressionList
from lmeraser.erase.retained import record_files
from lmeraser.pipeline.before import Before
from stages.split import read_source


class Gone(NamedTuple):
    """Who and what leaves a shard."""

    subjects: list[str]
    digests: list[str]  # of images


Leaving = dict[int, Gone]  # of a part, by the number of the shard
NOBODY = Gone([], [])


def update(before: Before, layout: Layout, params: Params, _: list[str]) -> bool:
    if before.parts is None:
        return _read_again(before, layout, params)
    parts = _parts(before, params)
    if parts is None or not before.is_whole(*(before.part(part) for part in before.parts)):
        return False
    suppression_list = SuppressionList.of(layout)
    leaving = {name: _leaving(parts[name], suppression_list) if name in before.parts else {} for name in params.parts}
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


def _leaving(part: Part, suppression_list: SuppressionList) -> Leaving:
    """Who and what leaves a part; of shards that lose nothing no more is read than names, and digests where images are erased."""
    leaving: Leaving = {}
    for shard in part.each():
        subjects = read_table(shard, ("subject",))["subject"].unique().to_pylist()
        erased = [subject for subject in subjects if suppression_list.is_erased(subject)]
        images = []
        if suppression_list.images:
            images = suppression_list.images.among(read_table(shard, ("sha256",))["sha256"].unique().to_pylist())
        if erased or images:
            leaving[shard.numbers[0]] = Gone(erased, images)
    return leaving


def _new_files(part: Part, leaving: Leaving) -> dict[str, Callable[[Path], None]]:
    """What writes the files that lose somebody, by their names as `Before.carry_over` has them."""
    shards = ((part.only([number]), erased) for number, erased in leaving.items())
    return {shard.files[0].name if part.divided else "": partial(_write_without, shard, erased) for shard, erased in shards}


def _without(table: pa.Table, erased: Gone) -> pa.Table:
    theirs = pc.is_in(table["subject"], value_set=pa.array(erased.subjects, pa.string()))
    those = pc.is_in(table["sha256"], value_set=pa.array(erased.digests, pa.string()))
    return table.filter(pc.invert(pc.or_(theirs, those))).combine_chunks()


def _write_without(shard: Part, erased: Gone, path: Path) -> None:
    write_table(path, _without(read_table(shard), erased))


def _two_labels_are_left(parts: Iterable[tuple[Part, Leaving]]) -> bool:
    """What `check_shares` asks of the private records."""
    labels: set[str] = set()
    for part, leaving in parts:
        for shard in part.each():
            table = _without(read_table(shard, ("label", "split", "subject", "sha256")), leaving.get(shard.numbers[0], NOBODY))
            labels |= set(table.filter(pc.equal(table["split"], TRAIN))["label"].unique().to_pylist())
            if len(labels) > 1:
                return True
    return False
