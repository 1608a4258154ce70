"""split: the source's table and images -> public.parquet and private/pNN.parquet."""

from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.core.records import write_records
from lmeraser.erase.erased import ErasedList, Gatekeeper, key_path
from lmeraser.sources import open_source
from lmeraser.sources.splitting import split_source
from stages.entry import enter


def split(layout: Layout, params: Params, _: list[str]) -> None:
    keeper = Gatekeeper(ErasedList.read(layout.erased), key_path(layout.private_state))
    source = open_source(params.source, layout.root)
    found = split_source(source, keeper.is_erased, len(params.parts), params.image.max_pixels)
    write_records(layout.public, found.public)
    for name, records in zip(params.parts, found.private, strict=True):
        write_records(layout.part(name), records)
    repeats = f", {found.repeated} repeated rows left out" if found.repeated else ""
    say(f"split: {len(found.public)} public and {sum(map(len, found.private))} private records{repeats}")


if __name__ == "__main__":
    enter(split)
