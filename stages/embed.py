"""embed@pNN: one private part, the backbone and the skeleton -> leaves.parquet and sums.safetensors.

No record's features are stored. Several parts may be named: one process then imports torch and loads the backbone once.
"""

from collections.abc import Sequence

from lmeraser.clusters.files import Member, save_placements
from lmeraser.clusters.global_head import save_sums
from lmeraser.clusters.skeleton import Skeleton, load_skeleton
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.data.decoding import decode_all
from lmeraser.data.records import TRAIN, Record, images_of, read_records
from lmeraser.learn.backbone import Backbone, load_backbone, make_deterministic
from lmeraser.learn.embedding import PartEmbedding, embed_part
from lmeraser.learn.environment import network_environment
from stages.runtime.entry import enter


def members_of(records: Sequence[Record], embedded: PartEmbedding, part: str) -> list[Member]:
    """The records as their units were placed."""
    return [
        Member(record.id, record.sha256, record.label, unit, int(leaf), part)
        for record, unit, leaf in zip(records, embedded.units, embedded.leaf, strict=True)
    ]


def embed_one(part: str, layout: Layout, params: Params, backbone: Backbone, skeleton: Skeleton) -> None:
    records = read_records(layout.part(part), TRAIN)
    pixels = decode_all(images_of(layout.part(part), records), params, f"embed {part}")
    embedded = embed_part(records, pixels, backbone, skeleton, params)
    members = members_of(records, embedded, part)
    say(f"embed {part}: {len(records)} records")
    save_placements(layout.leaves(part), members, embedded.finite.tolist(), skeleton.dim)
    save_sums(layout.sums(part), embedded.sums, network_environment(params.device))


def embed(layout: Layout, params: Params, parts: list[str]) -> None:
    make_deterministic(params.device)
    backbone = load_backbone(layout.backbone, params)
    skeleton = load_skeleton(layout.skeleton)
    for part in parts:
        embed_one(part, layout, params, backbone, skeleton)


if __name__ == "__main__":
    enter(embed)
