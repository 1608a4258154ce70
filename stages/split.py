"""split: the source's table and images -> public.parquet and private/pNN.parquet."""

from collections.abc import Collection

from lmeraser.core.files import DRAFT
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.data.records import write_records
from lmeraser.erase.erased import ErasedList, SuppressionList
from lmeraser.sources import check_source
from lmeraser.sources.splitting import divide, read_home
from stages.runtime.entry import enter


def split(layout: Layout, params: Params, _: list[str]) -> None:
    read_source(layout, params)


def read_source(layout: Layout, params: Params, known: Collection[str] = ()) -> None:
    """Write every file anew. Args: known: digests of images that this code accepted before: they are not decoded again."""
    suppression_list = SuppressionList.of(layout)
    ErasedList.known(layout).remember(layout)  # whoever was left out once stays out, whatever branch comes next
    source = check_source(params.source, layout.root)
    homes = divide(source, suppression_list.is_erased, len(params.parts))
    paths = [layout.public, *(layout.part(name) for name in params.parts)]
    drafts = [path.with_name(DRAFT + path.name) for path in paths]
    kept = []
    try:
        # One file's images are in memory at once; all files are made before the first of them takes its place.
        for draft, rows in zip(drafts, homes, strict=True):
            records = read_home(source, rows, params.image.max_pixels, known)
            write_records(draft, records)
            kept.append(len(records))
        for draft, path in zip(drafts, paths, strict=True):
            draft.replace(path)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)
    repeated = sum(map(len, homes)) - sum(kept)
    repeats = f", {repeated} repeated rows left out" if repeated else ""
    say(f"split: {kept[0]} public and {sum(kept[1:])} private records{repeats}")


if __name__ == "__main__":
    enter(split)
