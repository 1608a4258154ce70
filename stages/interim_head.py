"""interim_head: a copy of the artifacts and who must be left out of it -> interim.safetensors, the global head without them.

No DVC stage: it runs when a request is accepted, before any retraining. The head is, byte for byte, the one that the
retraining ends with, because its sums are whole numbers.
"""

import json

from lmeraser.clusters.files import load_sizes
from lmeraser.clusters.global_head import load_rule, load_sums, save_head, solve
from lmeraser.clusters.skeleton import load_skeleton
from lmeraser.core.errors import LmeraserError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.data.decoding import decode_all
from lmeraser.data.records import TRAIN, read_images, read_records
from lmeraser.learn.backbone import load_backbone, make_deterministic
from lmeraser.learn.embedding import embed_part
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
    without = set(json.loads((copy.root / "without.json").read_bytes()))
    make_deterministic(params.device)
    left_out = [record for part in params.parts for record in read_records(copy.part(part), TRAIN) if record.id in without]
    images: dict[str, bytes] = {}
    for part in params.parts:
        known = {record.id for record in read_records(copy.part(part), TRAIN)}
        images |= read_images(copy.part(part), {record.id: record.sha256 for record in left_out if record.id in known})
    pixels = decode_all([images[record.id] for record in left_out], params, "interim_head")
    backbone, skeleton = load_backbone(copy.backbone, params), load_skeleton(copy.skeleton)
    embedded = embed_part(left_out, pixels, backbone, skeleton, params)
    parts = (load_sums(copy.sums(part)) for part in params.parts)
    head = solve(parts, load_rule(copy.skeleton, params), load_sizes(copy.clusters), embedded.sums)
    save_head(copy.root / "interim.safetensors", head)


if __name__ == "__main__":
    enter(interim_head)
