"""The unit that goes to a cluster as a whole: a subject with all its records, or a record alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.digest import sha256
from lmeraser.data.records import Record


def unit_of(record: Record, unit: str) -> str:
    """32 hex digits; a function of the subject (unit subject) or of the record (unit record)."""
    return record.id if unit == "record" else sha256(b"unit\x1f" + record.subject.encode())[:32]


def group_units(records: Sequence[Record], unit: str) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the units, sorted, and (n,) the index of each record's unit."""
    names = [unit_of(record, unit) for record in records]
    distinct = sorted(set(names))
    place = {name: index for index, name in enumerate(distinct)}
    return distinct, np.array([place[name] for name in names], dtype=np.int64)
