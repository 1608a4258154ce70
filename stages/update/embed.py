"""embed@pNN: the units that lost or got a record leave the part's sums and placements, and come again as they are now.

Sums are whole numbers, and a record's features depend on its own image alone, so that what comes out is what embedding the whole
part gives. Whoever left for good was embedded when the request was accepted (`stages/interim_head.py`) and is not again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lmeraser.clusters.files import placement_table
from lmeraser.clusters.global_head import Sums, load_sums, save_sums
from lmeraser.clusters.leaving import changed, load_leaving
from lmeraser.clusters.skeleton import Skeleton, load_skeleton
from lmeraser.core.environment import Environment
from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.data.decoding import decode_all
from lmeraser.data.records import TRAIN, Part, Record, images_of, read_records, read_table, write_table
from lmeraser.data.tensors import read_note
from lmeraser.learn.backbone import Backbone, load_backbone, make_deterministic
from lmeraser.learn.embedding import PartEmbedding, embed_part
from lmeraser.learn.environment import network_environment
from lmeraser.pipeline.before import Before
from lmeraser.serve.quarantine import read_quarantine
from stages.embed import members_of


@dataclass(frozen=True)
class Network:
    """What features are made by."""

    backbone: Backbone
    skeleton: Skeleton
    params: Params
    made_in: Environment

    def embed(self, records: Sequence[Record], origin: Layout, part: str) -> PartEmbedding:
        pixels = decode_all(images_of(origin.part(part), records), self.params, f"embed {part}")
        return embed_part(records, pixels, self.backbone, self.skeleton, self.params)


def update(before: Before, layout: Layout, params: Params, parts: list[str]) -> bool:
    make_deterministic(params.device)
    skeleton = load_skeleton(layout.skeleton)
    network = Network(load_backbone(layout.backbone, params), skeleton, params, network_environment(params.device))
    return all(_update_one(part, before, layout, network) for part in parts)


def _update_one(part: str, before: Before, layout: Layout, network: Network) -> bool:
    if not before.is_whole(before.leaves(part), before.sums(part)):
        return False
    if read_note(before.sums(part))["environment"] != network.made_in:
        return False
    shards = _other_shards(before, layout, part)
    if shards is None:
        return False
    old, new = _changed(*shards, network.params)
    came = network.embed(new, layout, part)
    sums = changed(load_sums(before.sums(part)), _sums_of_leaving(old, new, before, layout, part, network), came.sums)
    if sums is None:
        return False
    save_sums(layout.sums(part), sums, network.made_in)
    kept = read_table(before.leaves(part)).filter(pc.invert(pc.is_in(pc.field("id"), pa.array([r.id for r in old], pa.string()))))
    arrived = placement_table(members_of(new, came, part), came.finite.tolist(), network.skeleton.dim)
    write_table(layout.leaves(part), pa.concat_tables([kept, arrived]).sort_by("id"))
    say(f"embed {part}: {len(old)} records out, {len(new)} in")
    return True


def _sums_of_leaving(
    old: Sequence[Record], new: Sequence[Record], before: Before, layout: Layout, part: str, network: Network
) -> Sums:
    """Of records as they were. Where none of their units stays, it may be known since the request was accepted."""
    quarantine = None if new else read_quarantine(layout)
    if quarantine:
        known = load_leaving(quarantine.layout(layout), [record.id for record in old], network.made_in)
        if known is not None:
            return known
    return network.embed(old, before, part).sums


def _other_shards(before: Before, layout: Layout, part: str) -> tuple[Part, Part] | None:
    """The shards that are others than before, as they were and as they are; None if those of before are not whole."""
    try:
        was = Part.of(before.part(part))
    except ProjectError:
        return None
    now = Part.of(layout.part(part))
    if (was.count, was.divided) != (now.count, now.divided):
        return None
    files = zip(now.numbers, now.files, strict=True)
    numbers = [number for number, file in files if not before.has_same(file, layout=layout)]
    was, now = was.only(numbers), now.only(numbers)
    return (was, now) if before.is_whole(*was.files) else None


def _changed(was: Part, now: Part, params: Params) -> tuple[list[Record], list[Record]]:
    """All records, before and now, of each unit that lost or got one; all of a unit's are in one shard."""
    old, new = _ids(was), _ids(now)
    gone, came = read_records(was, TRAIN, old - new), read_records(now, TRAIN, new - old)
    if params.cluster.unit == "record":
        return gone, came
    people = {record.subject for record in (*gone, *came)}
    return read_records(was, TRAIN, people=people), read_records(now, TRAIN, people=people)


def _ids(part: Part) -> set[str]:
    table = read_table(part, ("id", "split"))
    return set(table.filter(pc.equal(table["split"], TRAIN))["id"].to_pylist())
