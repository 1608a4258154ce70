"""split: where the source is as it was, an erasure only drops rows: the parts' own bytes without them are the new parts. Another
source is read, but an image that was checked once is not decoded again."""

import pyarrow as pa
import pyarrow.compute as pc

from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.data.records import TRAIN, read_table, write_table
from lmeraser.erase.erased import ErasedList, SuppressionList
from lmeraser.erase.retained import record_files
from lmeraser.pipeline.before import Before
from stages.split import read_source


def update(before: Before, layout: Layout, params: Params, _: list[str]) -> bool:
    if before.parts is None:
        return _read_again(before, layout, params)
    if not before.is_whole(*(before.part(part) for part in before.parts)):
        return False
    suppression_list = SuppressionList.of(layout)
    kept = {part: _without_erased(read_table(before.part(part)), suppression_list) for part in before.parts}
    if not _two_labels_are_left(before, params, kept):
        return False  # the stage says so
    ErasedList.known(layout).remember(layout)
    if not all(before.carry_over(layout.part(part), layout) for part in params.parts if part not in kept):
        return False
    for part, table in kept.items():
        write_table(layout.part(part), table)
    say(f"split: {len(kept)} of {len(params.parts)} parts without who left; nothing else was read")
    return True


def _read_again(before: Before, layout: Layout, params: Params) -> bool:
    """Another source: its images are read, and those that the state before held are not decoded again."""
    files = record_files(before, params)
    if not before.is_whole(*files):
        return False
    known = {digest for path in files for digest in read_table(path, ("sha256",))["sha256"].to_pylist()}
    read_source(layout, params, known)
    return True


def _without_erased(table: pa.Table, suppression_list: SuppressionList) -> pa.Table:
    erased = [subject for subject in table["subject"].unique().to_pylist() if suppression_list.is_erased(subject)]
    stays = pc.invert(pc.is_in(table["subject"], value_set=pa.array(erased, pa.string())))
    return table.filter(stays).combine_chunks()


def _two_labels_are_left(before: Before, params: Params, kept: dict[str, pa.Table]) -> bool:
    """What `check_shares` asks of the private records."""
    labels: set[str] = set()
    for part in params.parts:
        table = kept[part] if part in kept else read_table(before.part(part), ("label", "split"))
        labels |= set(table.filter(pc.equal(table["split"], TRAIN))["label"].unique().to_pylist())
        if len(labels) > 1:
            return True
    return False
