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
from lmeraser.erase.corrections import ROW, Corrections
from lmeraser.erase.erased import ErasedImages, SubjectKey, people_among


def record_files(layout: Layout, params: Params) -> list[Path]:
    """Every file of retained records: the public one, then the private parts."""
    return [layout.public, *(layout.part(part) for part in params.parts)]


def files_holding(
    layout: Layout, params: Params, subjects: Collection[str], images: Collection[str] = (), ids: Collection[str] = ()
) -> tuple[str, ...]:
    """Files in which a record of the subjects, one of the images or of the ids is, by their paths in the project, wherever it
    belongs."""
    columns = (("subject", subjects), ("sha256", images), ("id", ids))
    asked = {name: values for name, values in columns if values}

    def holds(file: Path) -> bool:
        table = read_table(file, list(asked))
        return any(pc.any(among(table[name], values)).as_py() for name, values in asked.items())

    return tuple(_name(layout, file) for file in record_files(layout, params) if asked and holds(file))


def retained_ids(
    layout: Layout, params: Params, key: SubjectKey, gone: Collection[str], known: Collection[str] = ()
) -> NDArray[np.bytes_]:
    """The ids of all retained records, sorted, each once, after checking that none is of the people, holds an image that should
    be gone, or has a value that was corrected.

    Args: gone: pseudonyms; known: files of which it is known otherwise that they hold none of them: each of the others' subjects
        (and images, if some are gone) costs an HMAC.
    Raises: VerificationError if somebody is left, or if there was nothing to check.
    """
    wanted, images, corrections = people_among(gone), ErasedImages(gone, key), Corrections(gone, key)
    columns = dict.fromkeys(["id", "subject", *(["sha256"] if images else []), *(ROW if corrections else ())])
    ids: list[NDArray[np.bytes_]] = []
    for file in record_files(layout, params):
        if _name(layout, file) in known:
            ids.append(_sorted(read_table(file, ["id"])))
            continue
        table = read_table(file, list(columns))
        ids.append(_sorted(table))
        if not wanted.isdisjoint(map(key.pseudonym, table["subject"].unique().to_pylist())):
            raise VerificationError(
                "records of the request's subjects are still in the parts; run `dvc repro`, then `lmeraser resume`"
            )
        if images and images.among(table["sha256"].unique().to_pylist()):
            raise VerificationError("images of the request are still in the parts; run `dvc repro`, then `lmeraser resume`")
        if corrections.old_rows(table):
            raise VerificationError("old values of the request are still in the parts; run `dvc repro`, then `lmeraser resume`")
    kept = np.unique(np.concatenate(ids))
    if not kept.size:
        raise VerificationError("no record was found to check; checking nothing proves nothing")
    return kept


def require_corrected(layout: Layout, params: Params, key: SubjectKey, gone: Collection[str], arriving: Collection[str]) -> int:
    """How many corrected rows are retained with the right values.

    Args: gone: pseudonyms, corrections among them; arriving: keyed hashes of the rows that must be.
    Raises: VerificationError if one is missing.
    """
    corrections = Corrections(gone, key)
    people = {correction.to_subject for correction in corrections.all}
    tables = (read_table(file, list(ROW)) for file in record_files(layout, params)) if corrections else ()
    rows = {row for table in tables for row in rows_of(table, key, people)}
    lost = len(set(arriving) - rows)
    if lost:
        raise VerificationError(
            f"{lost} corrected records are not there with the right values; run `dvc repro`, then `lmeraser resume`"
        )
    return sum(correction.to_row in rows for correction in corrections.all)


def rows_of(table: pa.Table, key: SubjectKey, people: Collection[str]) -> set[str]:
    """The keyed hashes of the rows (columns ROW) of people. Args: people: pseudonyms."""
    subjects = [subject for subject in table["subject"].unique().to_pylist() if key.pseudonym(subject) in people]
    theirs = table.filter(among(table["subject"], subjects))
    return {key.row_pseudonym(*row) for row in zip(*(theirs[name].to_pylist() for name in ROW), strict=True)}


def retained_pseudonyms(layout: Layout, params: Params, key: SubjectKey) -> set[str]:
    """Everybody of whom a record is retained, public or private: what proofs of absence are about."""
    return set[str]().union(*(pseudonyms_in(file, key) for file in record_files(layout, params)))


def pseudonyms_in(file: Path, key: SubjectKey, images: bool = False, corrections: Corrections | None = None) -> set[str]:
    """Everybody of whom a file holds a record. Raises: ProjectError.

    Args: images: its images' pseudonyms too; corrections: those of them too whose old values it holds.
    """
    table = read_table(file, list(dict.fromkeys(["subject", *(["sha256"] if images else []), *(ROW if corrections else ())])))
    named = set(map(key.pseudonym, table["subject"].unique().to_pylist()))
    named |= set(map(key.image_pseudonym, table["sha256"].unique().to_pylist())) if images else set()
    return named | ({correction.pseudonym for _, correction in corrections.old_rows(table)} if corrections else set())


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
