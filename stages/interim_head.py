"""interim_head: a copy of the artifacts and who must be left out of it -> interim.safetensors, the global head without them.

No DVC stage: it runs when a request is accepted, before any retraining. The head is, byte for byte, the one that the
retraining ends with, because its sums are whole numbers.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmeraser.clusters.files import load_sizes
from lmeraser.clusters.global_head import Sums, load_rule, load_sums, save_head, solve
from lmeraser.clusters.leaf_sums import LeafSums, combine
from lmeraser.clusters.leaving import save_leaving
from lmeraser.clusters.quantisation import Integers
from lmeraser.clusters.skeleton import Skeleton, load_skeleton
from lmeraser.core.errors import LmeraserError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.data.decoding import decode_all
from lmeraser.data.records import TRAIN, Record, images_of, read_records, read_table
from lmeraser.learn.backbone import load_backbone, make_deterministic
from lmeraser.learn.embedding import BLOCK, added, place, quantised_features
from lmeraser.learn.environment import network_environment
from lmeraser.serve.quarantine import read_quarantine
from stages.runtime.entry import enter


def interim_head(project: Layout, _: Params, folders: list[str]) -> None:
    for folder in folders:
        try:
            _solve_without(Layout(project.quarantine_copies / folder))
        except (LmeraserError, OSError):
            # A request that came meanwhile made a copy of its own and dropped this one; whoever accepted it solves that.
            now = read_quarantine(project)
            if now and now.folder == folder:
                raise


def _solve_without(copy: Layout) -> None:
    """Solve a copy's global head without the people that it must leave out."""
    params = load_params(copy.params)
    without = json.loads((copy.root / "without.json").read_bytes())
    make_deterministic(params.device)
    by_part = {part: read_records(copy.part(part), TRAIN, without) for part in params.parts}
    images = [image for part, records in by_part.items() for image in images_of(copy.part(part), records)]
    backbone, skeleton = load_backbone(copy.backbone, params), load_skeleton(copy.skeleton)
    quantised, finite = quantised_features(decode_all(images, params, "interim_head"), backbone, skeleton, params)
    made_in, start = network_environment(params.device), 0
    leaving: list[Sums] = []
    for part, records in by_part.items():
        rows = slice(start, start + len(records))
        start = rows.stop
        if records:
            sums = place(records, quantised[rows], finite[rows], skeleton, params).sums
            sums = _standing(sums, records, quantised[rows], _leaf_of(records, copy.leaves(part)), skeleton, params)
            save_leaving(copy, [record.id for record in records], sums, made_in)
            leaving.append(sums)
    whole = leaving[0] if len(leaving) == 1 else added(leaving) if leaving else None
    parts = (load_sums(copy.sums(part)) for part in params.parts)
    head = solve(parts, load_rule(copy.skeleton, params), load_sizes(copy.clusters), whole)
    save_head(copy.root / "interim.safetensors", head)


def _leaf_of(records: Sequence[Record], placements: Path) -> NDArray[np.int64]:
    """(n,) where each record stands now."""
    table = read_table(placements, ("id", "leaf"))
    leaf_of = dict(zip(*(table[name].to_pylist() for name in ("id", "leaf")), strict=True))
    return np.array([leaf_of[record.id] for record in records], dtype=np.int64)


def _standing(
    sums: Sums, records: Sequence[Record], quantised: Integers, leaf: NDArray[np.int64], skeleton: Skeleton, params: Params
) -> Sums:
    """The sums with those by leaf where the records stand now: of who loses only some, what leaves may be like another leaf."""
    if sums.by_leaf is None:
        return sums
    labels, levels = [record.label for record in records], params.projection.levels
    blocks = (slice(start, start + BLOCK) for start in range(0, max(len(records), 1), BLOCK))
    by_leaf = combine(LeafSums.of(skeleton.summand(quantised[rows], levels), leaf[rows], labels[rows]) for rows in blocks)
    return replace(sums, by_leaf=by_leaf)


if __name__ == "__main__":
    enter(interim_head)
