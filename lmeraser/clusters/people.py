"""Private training records and whose they are, by whole columns: a million of them are told of without an object for each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.data.records import TRAIN, read_table

MEND = "run `dvc repro` and retry"


@dataclass(frozen=True)
class People:
    """The n private training records of all parts, part after part, sorted by id within each.

    Attributes:
        ids: (n,) by part; subject: (n,) the number of each record's subject, in order of name, each number in [0, count) used.
        count: of subjects; labels: that any record has.
    """

    ids: dict[str, pa.ChunkedArray]
    subject: NDArray[np.int64]
    count: int
    labels: frozenset[str]

    @classmethod
    def of(cls, layout: Layout, parts: Sequence[str]) -> "People":
        """Raises: ProjectError if a part is absent or broken."""
        ids, subjects, labels = {}, [], set[str]()
        for part in parts:
            table = read_table(layout.part(part), ("id", "label", "subject", "split"))
            table = table.filter(pc.equal(table["split"], TRAIN))
            ids[part] = table["id"]
            subjects += table["subject"].chunks
            labels |= set(table["label"].unique().to_pylist())
        coded = pa.chunked_array(subjects, pa.string()).combine_chunks().dictionary_encode()
        order = pc.sort_indices(coded.dictionary).to_numpy()  # by bytes of UTF-8, which is the order of Python's text
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        return cls(ids, rank[coded.indices.to_numpy()], len(order), frozenset(labels))

    def __len__(self) -> int:
        return len(self.subject)

    def leaves(self, layout: Layout) -> NDArray[np.int64]:
        """(n,) the public leaf of each record. Raises: ProjectError if `embed` placed other records than the parts hold."""
        leaves = [np.zeros(0, dtype=np.int64)]
        for part, ids in self.ids.items():
            table = read_table(layout.leaves(part), ("id", "leaf"))
            if not table["id"].equals(ids):
                raise ProjectError(f"{part}/leaves.parquet and {part}.parquet are not of the same records; {MEND}")
            leaves.append(table["leaf"].to_numpy())
        return np.concatenate(leaves)

    def in_slots(self, layout: Layout, slots: Sequence[str]) -> list[int]:
        """How many subjects' records each slot holds. Raises: ProjectError if a slot has a record that no part has."""
        members = [read_table(layout.members(slot), ("id",))["id"] for slot in slots]
        if not members:
            return []
        everybody = pa.chunked_array([chunk for ids in self.ids.values() for chunk in ids.chunks], pa.string()).combine_chunks()
        placed = pa.chunked_array([chunk for column in members for chunk in column.chunks], pa.string())
        row = pc.index_in(placed, value_set=everybody)
        if row.null_count:
            raise ProjectError(f"clusters hold {row.null_count} records that no part has; {MEND}")
        slot = np.repeat(np.arange(len(slots)), [len(column) for column in members])
        pairs = np.unique(slot * max(self.count, 1) + self.subject[row.to_numpy()])
        counted: list[int] = np.bincount(pairs // max(self.count, 1), minlength=len(slots)).tolist()
        return counted
