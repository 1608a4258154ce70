"""split: the source's table and images -> public.parquet and private/pNN.parquet, a file or a folder of shards each."""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path

import pandas as pd

from lmeraser.core.files import DRAFT, discard, take_place
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say, track
from lmeraser.data.records import Record, shard_file, write_records
from lmeraser.erase.corrections import corrected
from lmeraser.erase.erased import ErasedList, SuppressionList
from lmeraser.sources import check_source
from lmeraser.sources.splitting import by_shard, divide, read_home
from stages.runtime.entry import enter

Read = Callable[[pd.DataFrame], list[tuple[Record, bytes]]]


def split(layout: Layout, params: Params, _: list[str]) -> None:
    read_source(layout, params)


def read_source(layout: Layout, params: Params, known: Collection[str] = ()) -> None:
    """Write every file anew. Args: known: digests of images that this code accepted before: they are not decoded again."""
    suppression_list = SuppressionList.of(layout)
    ErasedList.known(layout).remember(layout)  # whoever was left out once stays out, whatever branch comes next
    source = corrected(check_source(params.source, layout.root), suppression_list)
    homes, erased = divide(source, suppression_list.is_erased, len(params.parts))
    paths = [layout.public, *(layout.part(name) for name in params.parts)]
    drafts = [path.with_name(DRAFT + path.name) for path in paths]
    kept = []
    try:
        # One file's images are in memory at once; everything is made before the first of it takes its place.
        for draft, path, rows in zip(drafts, paths, homes, strict=True):
            discard(draft)
            shards = 1 if path == layout.public else params.shards
            read = partial(
                read_home, source, max_pixels=params.image.max_pixels, known=known, erased_images=suppression_list.images
            )
            kept.append(_write(draft, path.stem, by_shard(rows, shards), read))
        for draft, path in zip(drafts, paths, strict=True):
            take_place(draft, path)
    finally:
        for draft in drafts:
            discard(draft)
    repeated = sum(map(len, homes)) - sum(kept)
    others = " or of erased images" if suppression_list.images else ""
    repeats = f", {repeated} repeated rows{others} left out" if repeated else ""
    if erased:
        say(f"split: {erased} people of the source are on the list of the erased (still there, or imported again); they stay out")
    say(f"split: {kept[0]} public and {sum(kept[1:])} private records{repeats}")


def _write(draft: Path, name: str, shards: list[pd.DataFrame], read: Read) -> int:
    """Read and write what goes to one path, shard by shard. Returns: how many records that is."""
    if len(shards) == 1:
        records = read(shards[0])
        write_records(draft, records)
        return len(records)
    draft.mkdir(parents=True)
    written = 0
    numbered: Iterable[tuple[int, pd.DataFrame]] = enumerate(shards)
    for number, rows in track(numbered, len(shards), f"split {name}", "file"):
        records = read(rows)
        write_records(shard_file(draft, number), records, number, len(shards))
        written += len(records)
    return written


if __name__ == "__main__":
    enter(split)
