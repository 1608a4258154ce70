"""embed@pNN: one private part, the backbone and the skeleton -> leaves.parquet and sums.safetensors.

No record's features are stored. A subject's records are in one shard, and sums are whole numbers, so that shards are embedded one
after the other, with the same bytes. Several parts may be named: one process then imports torch and loads the backbone once.
"""

from collections.abc import Iterator, Sequence

from lmeraser.clusters.files import Member, save_placements
from lmeraser.clusters.global_head import Sums, save_sums
from lmeraser.clusters.skeleton import Skeleton, load_skeleton
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.data.decoding import decode_all
from lmeraser.data.records import TRAIN, Part, Record, images_of, read_records
from lmeraser.learn.backbone import Backbone, load_backbone, make_deterministic
from lmeraser.learn.embedding import PartEmbedding, added, embed_part
from lmeraser.learn.environment import network_environment
from stages.runtime.entry import enter

LOAD = 64 * 2**20  # bytes of shards: one that is alone in its forward passes fills most of a batch with nothing


def members_of(records: Sequence[Record], embedded: PartEmbedding, part: str) -> list[Member]:
    """The records as their units were placed."""
    return [
        Member(record.id, record.sha256, record.label, unit, int(leaf), part)
        for record, unit, leaf in zip(records, embedded.units, embedded.leaf, strict=True)
    ]


def loads(part: Part) -> Iterator[Part]:
    """A part's shards, as many at a time as have LOAD bytes: so much is decoded at once, or one shard."""
    numbers: list[int] = []
    size = 0
    for number, file in zip(part.numbers, part.files, strict=True):
        length = file.stat().st_size if part.divided else 0
        if numbers and size + length > LOAD:
            yield part.only(numbers)
            numbers, size = [], 0
        numbers.append(number)
        size += length
    yield part.only(numbers)


def embed_one(part: str, layout: Layout, params: Params, backbone: Backbone, skeleton: Skeleton) -> None:
    rows: list[tuple[Member, bool]] = []
    sums: list[Sums] = []
    for load in loads(Part.of(layout.part(part))):
        records = read_records(load, TRAIN)
        pixels = decode_all(images_of(load, records), params, f"embed {part}")
        embedded = embed_part(records, pixels, backbone, skeleton, params)
        rows += zip(members_of(records, embedded, part), embedded.finite.tolist(), strict=True)
        sums = [added([*sums, embedded.sums])] if sums else [embedded.sums]
    rows.sort()
    say(f"embed {part}: {len(rows)} records")
    save_placements(layout.leaves(part), [member for member, _ in rows], [finite for _, finite in rows], skeleton.dim)
    save_sums(layout.sums(part), sums[0], network_environment(params.device))


def embed(layout: Layout, params: Params, parts: list[str]) -> None:
    make_deterministic(params.device)
    backbone = load_backbone(layout.backbone, params)
    skeleton = load_skeleton(layout.skeleton)
    for part in parts:
        embed_one(part, layout, params, backbone, skeleton)


if __name__ == "__main__":
    enter(embed)
