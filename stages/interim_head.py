"""interim_head: a copy of the artifacts and who must be left out of it -> interim.safetensors, the global head without them.

No DVC stage: it runs when a request is accepted, before any retraining. The head is, byte for byte, the one that the
retraining ends with, because its sums are whole numbers.
"""

import json

from lmeraser.clusters.files import load_sizes
from lmeraser.clusters.global_head import load_rule, load_sums, save_head, solve
from lmeraser.clusters.leaving import save_leaving
from lmeraser.clusters.skeleton import load_skeleton
from lmeraser.core.errors import LmeraserError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.data.decoding import decode_all
from lmeraser.data.records import TRAIN, images_of, read_records
from lmeraser.learn.backbone import load_backbone, make_deterministic
from lmeraser.learn.embedding import place, quantised_features
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
    leaving = [record for records in by_part.values() for record in records]
    images = [image for part, records in by_part.items() for image in images_of(copy.part(part), records)]
    backbone, skeleton = load_backbone(copy.backbone, params), load_skeleton(copy.skeleton)
    quantised, finite = quantised_features(decode_all(images, params, "interim_head"), backbone, skeleton, params)
    made_in, start = network_environment(params.device), 0
    for records in filter(None, by_part.values()):
        rows = slice(start, start + len(records))
        start = rows.stop
        sums = place(records, quantised[rows], finite[rows], skeleton, params).sums
        save_leaving(copy, [record.id for record in records], sums, made_in)
    whole = place(leaving, quantised, finite, skeleton, params).sums
    parts = (load_sums(copy.sums(part)) for part in params.parts)
    head = solve(parts, load_rule(copy.skeleton, params), load_sizes(copy.clusters), whole)
    save_head(copy.root / "interim.safetensors", head)


if __name__ == "__main__":
    enter(interim_head)
