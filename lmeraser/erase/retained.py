"""Who is in the records that a built state retains, and whether each training record is in one cluster: by columns.

With a million records as Python objects this would take ten times the time and several GiB; so what is read are the columns that
a question needs, and what is compared are sorted arrays.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lmeraser.core.errors import VerificationError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.data.columns import among
from lmeraser.data.records import read_table
from lmeraser.erase.erased import ErasedImages, SubjectKey, people_among


def record_files(layout: Layout, params: Params) -> list[Path]:
    """Every file of retained records: the public one, then the private parts."""
    return [layout.public, *(layout.part(part) for part in params.parts)]


def files_holding(layout: Layout, params: Params, subjects: Collection[str], images: Collection[str] = ()) -> tuple[str, ...]:
    """Files in which a record of the subjects or one of the images is, by their paths in the project, wherever it belongs."""
    asked = {name: values for name, values in (("subject", subjects), ("sha256", images)) if values}

    def holds(file: Path) -> bool:
        table = read_table(file, list(asked))
        return any(pc.any(among(table[name], values)).as_py() for name, values in asked.items())

    return tuple(_name(layout, file) for file in record_files(layout, params) if asked and holds(file))


def retained_ids(
    layout: Layout, params: Params, key: SubjectKey, gone: Collection[str], known: Collection[str] = ()
) -> NDArray[np.bytes_]:
    """The ids of all retained records, sorted, each once, after checking that none is of the people or holds an
    image that should be gone.

    Args: gone: pseudonyms; known: files of which it is known otherwise that they hold none of them: each of the others' subjects
        (and images, if some are gone) costs an HMAC.
    Raises: VerificationError if somebody is left, or if there was nothing to check.
    """
    wanted, images = people_among(gone), ErasedImages(gone, key)
    ids: list[NDArray[np.bytes_]] = []
    for file in record_files(layout, params):
        if _name(layout, file) in known:
            ids.append(_sorted(read_table(file, ["id"])))
            continue
        table = read_table(file, ["id", "subject", *(["sha256"] if images else [])])
        ids.append(_sorted(table))
        if not wanted.isdisjoint(map(key.pseudonym, table["subject"].unique().to_pylist())):
            raise VerificationError(
                "records of the request's subjects are still in the parts; run `dvc repro`, then `lmeraser resume`"
            )
        if images and images.among(table["sha256"].unique().to_pylist()):
            raise VerificationError("images of the request are still in the parts; run `dvc repro`, then `lmeraser resume`")
    kept = np.unique(np.concatenate(ids))
    if not kept.size:
        raise VerificationError("no record was found to check; checking nothing proves nothing")
    return kept


def retained_pseudonyms(layout: Layout, params: Params, key: SubjectKey) -> set[str]:
    """Everybody of whom a record is retained, public or private: what proofs of absence are about."""
    return set[str]().union(*(pseudonyms_in(file, key) for file in record_files(layout, params)))


def pseudonyms_in(file: Path, key: SubjectKey, images: bool = False) -> set[str]:
    """Everybody of whom a file holds a record. Args: images: its images' pseudonyms too. Raises: ProjectError."""
    table = read_table(file, ["subject", *(["sha256"] if images else [])])
    named = set(map(key.pseudonym, table["subject"].unique().to_pylist()))
    return named | set(map(key.image_pseudonym, table["sha256"].unique().to_pylist())) if images else named


def require_partition(layout: Layout, params: Params, kept: NDArray[np.bytes_]) -> int:
    """Raise VerificationError unless each training record is in one cluster, and is retained. Returns how many there are.

    Args: kept: ids of all retained records, sorted.
    """
    placed = np.sort(np.concatenate([_sorted(read_table(layout.leaves(part), ["id"])) for part in params.parts]))
    tuned = np.sort(np.concatenate([_sorted(read_table(layout.members(slot), ["id"])) for slot in params.slots]))
    where = np.minimum(np.searchsorted(kept, placed), kept.size - 1)
    if not np.array_equal(placed, tuned) or not np.array_equal(kept[where], placed):
        raise VerificationError(
            "a cluster holds a record that is in no part, or misses one; run `dvc repro`, then `lmeraser resume`"
        )
    return int(tuned.size)


def _name(layout: Layout, file: Path) -> str:
    return file.relative_to(layout.root).as_posix()


def _sorted(table: pa.Table) -> NDArray[np.bytes_]:
    """A table's ids, sorted. numpy takes texts of one length as bytes, without a Python object for each."""
    column = table["id"].combine_chunks()
    if not len(column):
        return np.empty(0, "S1")
    lengths = pc.min_max(pc.binary_length(column)).as_py()
    if lengths["min"] != lengths["max"] or not lengths["min"]:
        return np.sort(np.array([text.encode() for text in column.to_pylist()]))
    fixed = column.cast(pa.binary()).cast(pa.binary(lengths["min"]))
    start = fixed.offset * lengths["min"]
    whole = np.frombuffer(fixed.buffers()[1], np.uint8)[start : start + len(fixed) * lengths["min"]]
    return np.sort(whole.view(f"S{lengths['min']}"))
