"""Clusters as files: the members of each slot, the router, the table of sizes, and where `embed` placed each record."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lmeraser.clusters.quantisation import Integers
from lmeraser.core.digest import readable_json
from lmeraser.core.environment import Environment
from lmeraser.core.errors import ProjectError
from lmeraser.core.files import write_atomically
from lmeraser.data.records import read_columns, read_table, write_table
from lmeraser.data.tensors import read_note, read_tensors, write_tensors

MEMBER_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "sha256", "label", "part")])
LEAF_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "sha256", "label", "unit")),
        ("leaf", pa.int64()),
        ("finite", pa.bool_()),
        ("dim", pa.int64()),
    ]
)


@dataclass(frozen=True, order=True, slots=True)
class Member:
    """A private training record as `embed` places it: its unit's leaf, and the part that holds its image."""

    id: str
    sha256: str
    label: str
    unit: str
    leaf: int
    part: str


@dataclass(frozen=True, slots=True)
class SlotMember:
    """A record as its slot's file names it, with the part that holds its image."""

    id: str
    sha256: str
    label: str
    part: str


@dataclass(frozen=True)
class ClusterSize:
    """A row of the table of clusters that hold somebody. Attributes: as of `Cluster`; records, units: how many it holds."""

    slot: str
    node: int
    first_leaf: int
    last_leaf: int
    records: int
    units: int


@dataclass(frozen=True)
class Cluster:
    """One cluster.

    Attributes:
        node: of the hierarchy, or the anchor cluster's rank; prototype: (d,) whole numbers.
        first_leaf, last_leaf: the public leaves it covers, both inclusive (-1 for anchor clusters).
    """

    slot: str
    node: int
    first_leaf: int
    last_leaf: int
    members: list[Member]
    prototype: Integers

    @property
    def size(self) -> ClusterSize:
        units = {member.unit for member in self.members}
        return ClusterSize(self.slot, self.node, self.first_leaf, self.last_leaf, len(self.members), len(units))


def save_clusters(folder: Path, clusters: Sequence[Cluster], slots: Sequence[str], made_in: Environment) -> None:
    """Write one member file a slot (empty ones too), the router and a table of sizes.

    Args: made_in: what the prototypes were computed in.
    """
    by_slot = {cluster.slot: cluster for cluster in clusters}
    for slot in slots:
        save_members(folder, slot, by_slot[slot].members if slot in by_slot else [])
    save_overview(folder, [cluster.size for cluster in clusters], np.array([cluster.prototype for cluster in clusters]), made_in)


def save_members(folder: Path, slot: str, members: Sequence[Member]) -> None:
    """Args: members: sorted by id; none for an empty slot."""
    columns = {name: [getattr(member, name) for member in members] for name in MEMBER_SCHEMA.names}
    write_table(folder / "members" / f"{slot}.parquet", pa.table(columns, schema=MEMBER_SCHEMA))


def save_overview(folder: Path, sizes: Sequence[ClusterSize], prototypes: Integers, made_in: Environment) -> None:
    """The table of sizes and the router. Args: prototypes: (k, d) of the clusters that hold somebody, in the order of sizes."""
    write_atomically(folder / "clusters.json", readable_json([asdict(size) for size in sizes]))
    note = {"slots": [size.slot for size in sizes], "environment": made_in}
    write_tensors(folder / "router.safetensors", {"prototypes": prototypes}, note)


def load_sizes(folder: Path) -> list[ClusterSize]:
    """The table of non-empty clusters. Raises: ProjectError."""
    try:
        return [ClusterSize(**row) for row in json.loads((folder / "clusters.json").read_bytes())]
    except (FileNotFoundError, TypeError, ValueError) as error:
        raise ProjectError("clusters.json is missing or damaged; run `dvc repro` (or `dvc checkout`)") from error


def load_router(path: Path) -> tuple[Integers, list[str]]:
    """(k, d) prototypes and the k slots that they lead to."""
    tensors, note = read_tensors(path)
    return tensors["prototypes"], note["slots"]


def load_router_environment(path: Path) -> Environment:
    """What the prototypes were computed in."""
    made_in: Environment = read_note(path)["environment"]
    return made_in


def load_members(path: Path) -> list[SlotMember]:
    """A slot's records, sorted by id; empty for an empty slot."""
    return [SlotMember(*row) for row in zip(*read_columns(read_table(path, MEMBER_SCHEMA.names)), strict=True)]


def placement_table(members: Sequence[Member], finite: Sequence[bool], dim: int) -> pa.Table:
    """What `embed` says of private training records, a row each."""
    columns: dict[str, Any] = {name: [getattr(member, name) for member in members] for name in LEAF_SCHEMA.names[:5]}
    return pa.table(columns | {"finite": list(finite), "dim": [dim] * len(members)}, schema=LEAF_SCHEMA)


def save_placements(path: Path, members: Sequence[Member], finite: Sequence[bool], dim: int) -> None:
    """What `embed` says of a part's private training records, sorted by id."""
    write_table(path, placement_table(members, finite, dim))


def load_placements(path: Path, part: str) -> list[Member]:
    """A part's private training records, sorted by id."""
    columns = read_columns(read_table(path, LEAF_SCHEMA.names[:5]), shared=("label",))
    return [Member(*row) for row in zip(*columns, repeat(part, len(columns[0])), strict=True)]
