"""newcomers: a manifest of people who are to come -> newcomers.json, where their records would stand and who would move for it.

No DVC stage, and it changes nothing: `lmeraser plan --add` asks it what an addition would retrain. Written are counts alone.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmeraser.clusters.skeleton import load_skeleton
from lmeraser.core.digest import part_of, readable_json
from lmeraser.core.errors import ManifestError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.data.decoding import decode_all
from lmeraser.data.records import PUBLIC, TRAIN, Record, images_of, read_records, read_table
from lmeraser.erase.corrections import corrected
from lmeraser.erase.erased import SuppressionList
from lmeraser.learn.backbone import load_backbone, make_deterministic
from lmeraser.learn.embedding import place, quantised_features
from lmeraser.sources.manifest import ManifestSource
from lmeraser.sources.splitting import check_table, read_home
from stages.runtime.entry import enter


def newcomers(layout: Layout, params: Params, paths: list[str]) -> None:
    for path in paths:
        write_atomically(layout.newcomers, readable_json(_look_at(Path(path), layout, params)), mode=0o600)


def _look_at(path: Path, layout: Layout, params: Params) -> dict[str, object]:
    kept_out = SuppressionList.of(layout)
    source = corrected(ManifestSource.open(path, layout.root), kept_out)
    table = source.table()
    check_table(table, source.name, source.unit)
    if (table["visibility"] == PUBLIC).any():
        raise ManifestError(
            f"{source.name}: it holds public records, from which the backbone would learn anew, and with it everything; expected "
            "private ones alone: leave the public rows out and retry"
        )
    erased = {subject for subject in table["subject"].unique() if kept_out.is_erased(subject)}
    rows = table[~table["subject"].isin(erased)]
    images = dict(read_home(source, rows, params.image.max_pixels, erased_images=kept_out.images))
    there = {part: read_records(layout.part(part), people={record.subject for record in images}) for part in params.parts}
    known = {record.id for records in there.values() for record in records}
    fresh = [record for record in images if record.id not in known]
    people = {record.subject for record in fresh}
    # Whoever gets another training record may move with all that are there.
    moving = {record.subject for record in fresh if record.split == TRAIN} if params.cluster.unit == "subject" else set()
    stay = {
        part: [record for record in records if record.subject in moving and record.split == TRAIN]
        for part, records in there.items()
    }
    for part, records in stay.items():
        images |= dict(zip(records, images_of(layout.part(part), records), strict=True))
    staying = [record for records in stay.values() for record in records]
    came = sorted([*staying, *(record for record in fresh if record.split == TRAIN)])
    return {
        "records": len(fresh),
        "training": len(came) - len(staying),
        "subjects": len(people),
        "known": len({record.subject for records in there.values() for record in records} & people),
        "repeated": len(table) - len(fresh) - int(table["subject"].isin(erased).sum()),
        "erased": len(erased),
        "parts": sorted({params.parts[part_of(person, len(params.parts))] for person in people}),
        "leave": _counts(_leaves_now(layout, params, {record.id for record in staying})),
        "arrive": _counts(_leaves_of(came, images, layout, params)),
    }


def _leaves_now(layout: Layout, params: Params, ids: set[str]) -> list[int]:
    wanted, leaves = pa.array(ids, pa.string()), []
    for part in params.parts:
        table = read_table(layout.leaves(part), ("id", "leaf"))
        leaves += table.filter(pc.is_in(table["id"], value_set=wanted))["leaf"].to_pylist()
    return leaves


def _leaves_of(records: list[Record], images: dict[Record, bytes], layout: Layout, params: Params) -> list[int]:
    make_deterministic(params.device)
    skeleton = load_skeleton(layout.skeleton)
    pixels = decode_all([images[record] for record in records], params, "newcomers")
    backbone = load_backbone(layout.backbone, params)
    leaves: list[int] = place(records, *quantised_features(pixels, backbone, skeleton, params), skeleton, params).leaf.tolist()
    return leaves


def _counts(leaves: list[int]) -> dict[str, int]:
    """Records by leaf."""
    values, counts = np.unique(np.asarray(leaves, dtype=np.int64), return_counts=True)
    return {str(leaf): int(count) for leaf, count in zip(values, counts, strict=True)}


if __name__ == "__main__":
    enter(newcomers)
