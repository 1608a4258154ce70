"""moves: people who lose some of their records -> where each of them stands now, and where with the records that stay.

No DVC stage, and it changes no artifact: the plan of an erasure of single images asks it. A unit's leaf is that of the mean of
its records, which only the network can tell. The question names records by their ids; the answer takes its place and has numbers
alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmeraser.clusters.skeleton import load_skeleton
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.data.decoding import decode_all
from lmeraser.data.records import Record, images_of, read_records, read_table
from lmeraser.learn.backbone import load_backbone, make_deterministic
from lmeraser.learn.embedding import leaf_of_units, quantised_features
from stages.runtime.asked import answer_in_place
from stages.runtime.entry import enter

PLACED = ("id", "unit", "leaf")


@dataclass(frozen=True)
class Staying:
    """The training records that stay with a unit. Attributes: part: where they lie; now: their leaf; ids: of the records."""

    part: str
    now: int
    ids: frozenset[str]


def moves(project: Layout, _: Params, tokens: list[str]) -> None:
    for token in tokens:
        answer_in_place(project, project.moves(token), _answer)


def _answer(layout: Layout, asked: dict[str, Any]) -> list[tuple[int, int, int]]:
    """Of each unit: how many training records stay, their leaf now, and their leaf then."""
    params = load_params(layout.params)
    staying = _staying(layout, params, asked["lost"])
    records: list[Record] = []
    images: list[bytes] = []
    for part in params.parts:
        wanted = {identity for unit in staying if unit.part == part for identity in unit.ids}
        kept = read_records(layout.part(part), only=wanted) if wanted else []
        records += kept
        images += images_of(layout.part(part), kept) if kept else []
    make_deterministic(params.device)
    skeleton, pixels = load_skeleton(layout.skeleton), decode_all(images, params, "moves")
    features, _ = quantised_features(pixels, load_backbone(layout.backbone, params), skeleton, params)
    row_of = {record.id: row for row, record in enumerate(records)}
    rows = [row_of[identity] for unit in staying for identity in sorted(unit.ids)]
    whose = np.repeat(np.arange(len(staying)), [len(unit.ids) for unit in staying])
    names = [str(number) for number in range(len(staying))]  # only a hash of them would count, and then nobody moves
    then = leaf_of_units(names, features[rows], whose, skeleton.hierarchy, params.cluster.method)
    return [(len(unit.ids), unit.now, leaf) for unit, leaf in zip(staying, then.tolist(), strict=True)]


def _staying(layout: Layout, params: Params, lost: list[list[str]]) -> list[Staying]:
    """Args: lost: of each unit the ids of records that it loses; some stay."""
    tables = {part: read_table(layout.leaves(part), PLACED) for part in params.parts}
    units = []
    for ids in lost:
        gone = pa.array(ids, pa.string())
        for part, table in tables.items():
            unit = table["unit"].filter(pc.is_in(table["id"], value_set=gone)).unique()
            if len(unit):
                rows = table.filter(pc.is_in(table["unit"], value_set=unit))
                kept = rows.filter(pc.invert(pc.is_in(rows["id"], value_set=gone)))
                units.append(Staying(part, kept["leaf"][0].as_py(), frozenset(kept["id"].to_pylist())))
                break
    return units


if __name__ == "__main__":
    enter(moves)
