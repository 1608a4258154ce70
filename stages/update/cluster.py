"""cluster: the hierarchy is cut anew by what its leaves hold; only clusters that lost, got or moved a record are written."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lmeraser.clusters.assignment import leaf_counts, prototype_of, rule_of, slot_of
from lmeraser.clusters.files import ClusterSize, Member, load_router_environment, load_sizes, save_members, save_overview
from lmeraser.clusters.hierarchy import Hierarchy, cut
from lmeraser.clusters.skeleton import load_hierarchy
from lmeraser.core.environment import environment
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.data.records import read_table
from lmeraser.pipeline.before import Before
from stages.cluster import tell

COLUMNS = ("id", "sha256", "label", "unit", "leaf")


@dataclass(frozen=True)
class Placed:
    """Every part's placements, as columns. Attributes: tables: by part; leaves: (n,) of all records."""

    tables: dict[str, pa.Table]
    leaves: NDArray[np.int64]

    @classmethod
    def read(cls, layout: Layout, params: Params) -> "Placed":
        tables = {part: read_table(layout.leaves(part), COLUMNS) for part in params.parts}
        return cls(tables, np.concatenate([table["leaf"].to_numpy() for table in tables.values()]))

    def members(self, first: int, last: int) -> list[Member]:
        """Who is in a range of leaves, sorted by id."""
        found = []
        for part, table in self.tables.items():
            inside = table.filter(pc.and_(pc.greater_equal(table["leaf"], first), pc.less_equal(table["leaf"], last)))
            columns = (inside[name].to_pylist() for name in COLUMNS)
            found += [Member(*row) for row in zip(*columns, repeat(part, len(inside)), strict=True)]
        return sorted(found)


def update(before: Before, layout: Layout, params: Params, _: list[str]) -> bool:
    if params.cluster.method == "anchors" or not before.is_whole(before.sizes, before.router):
        return False
    made_in = environment()
    if load_router_environment(before.router) != made_in:
        return False
    moved = _leaves_that_changed(before, layout, params)
    if moved is None:
        return False
    placed, tree = Placed.read(layout, params), load_hierarchy(layout.skeleton)
    known = {(size.slot, size.node): size for size in load_sizes(before.clusters)}
    sizes = []
    for node in cut(tree, leaf_counts(tree, placed.leaves), rule_of(params.cluster)):
        size = known.get((slot_of(tree, node, params.slots), node))
        if size is None or moved[size.first_leaf : size.last_leaf + 1].any():
            size = _write(tree, node, placed, layout, params)
        elif not before.carry_over(layout.members(size.slot), layout):
            return False
        sizes.append(size)
    if not _empty_others(sizes, set(known), before, layout, params):
        return False
    save_overview(layout.clusters, sizes, np.array([prototype_of(tree, size.node, params.cluster) for size in sizes]), made_in)
    tell(sizes, params)
    return True


def _leaves_that_changed(before: Before, layout: Layout, params: Params) -> NDArray[np.bool_] | None:
    """(l,) whether a leaf lost or got a record; None where the state before is not whole."""
    changed = [part for part in params.parts if not before.has_same(layout.leaves(part), layout=layout)]
    if not before.is_whole(*(before.leaves(part) for part in changed)):
        return None
    tree = load_hierarchy(layout.skeleton)
    moved = np.zeros(tree.n_leaves, dtype=np.bool_)
    for part in changed:
        rows = [
            set(zip(*(read_table(place.leaves(part), COLUMNS)[name].to_pylist() for name in COLUMNS), strict=True))
            for place in (before, layout)
        ]
        moved[[row[-1] for row in rows[0] ^ rows[1]]] = True
    return moved


def _write(tree: Hierarchy, node: int, placed: Placed, layout: Layout, params: Params) -> ClusterSize:
    first, last = int(tree.first_leaf[node]), int(tree.last_leaf[node])
    members, slot = placed.members(first, last), slot_of(tree, node, params.slots)
    save_members(layout.clusters, slot, members)
    return ClusterSize(slot, node, first, last, len(members), len({member.unit for member in members}))


def _empty_others(
    sizes: Sequence[ClusterSize], known: set[tuple[str, int]], before: Before, layout: Layout, params: Params
) -> bool:
    """Slots that hold nobody: those that held somebody before are emptied."""
    used, was_used = {size.slot for size in sizes}, {slot for slot, _ in known}
    for slot in (slot for slot in params.slots if slot not in used):
        if slot in was_used:
            save_members(layout.clusters, slot, [])
        elif not before.carry_over(layout.members(slot), layout):
            return False
    return True
