"""Records (one image of one subject) and the Parquet files that hold them.

A record's id is a function of its content alone: the digest of the image as it came, the subject, the label and where
it belongs. Row numbers, paths and the order of a manifest never matter. Files are sorted by id and not compressed: the
images are compressed already, and a byte scan must be able to find what is left behind.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lmeraser.core.digest import sha256
from lmeraser.core.errors import DigestMismatchError, ProjectError
from lmeraser.core.files import write_atomically

TRAIN, TEST = "train", "test"
PUBLIC, PRIVATE = "public", "private"

SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # 32 hex digits
        ("sha256", pa.string()),  # of the image's bytes
        ("label", pa.string()),
        ("subject", pa.string()),
        ("split", pa.string()),  # train | test
        ("image", pa.binary()),  # PNG, JPEG or WebP, byte for byte as it came
    ]
)
FACTS = tuple(SCHEMA.names[:-1])  # everything but the image
GROUP = 2**20  # bytes of a row group, about: whoever wants one image reads no more than that


@dataclass(frozen=True, order=True, slots=True)
class Record:
    id: str
    sha256: str
    label: str
    subject: str
    split: str


def record_id(image_sha256: str, subject: str, label: str, visibility: str, split: str) -> str:
    """32 hex digits that name a record by its content."""
    fields = "\x1f".join((image_sha256, subject, label, visibility, split))
    return hashlib.sha256(b"record\x1f" + fields.encode()).hexdigest()[:32]


def _content_bytes(table: pa.Table) -> int:
    """Of the values alone: what buffers take in memory depends on how a table came about."""
    import pyarrow.compute as pc

    texts = [column for column in table.columns if not pa.types.is_primitive(column.type)]
    lengths: list[int] = [pc.sum(pc.binary_length(column)).as_py() or 0 for column in texts]
    return sum(lengths) + 8 * int(table.num_rows)


def write_table(path: Path, table: pa.Table) -> None:
    """Write Parquet whose bytes are a function of the table alone; only its owner reads it: it holds images, names or ids."""
    whole = table.combine_chunks()  # where chunks begin and end would be seen in the pages
    rows = max(1, whole.num_rows * GROUP // max(_content_bytes(whole), 1))
    write_atomically(
        path,
        lambda draft: pq.write_table(whole, draft, compression="NONE", use_dictionary=False, row_group_size=rows),
        mode=0o600,
    )


def write_records(path: Path, records: Sequence[tuple[Record, bytes]]) -> None:
    """Write records and their images, sorted by id."""
    ordered = sorted(records, key=lambda pair: pair[0].id)
    columns = {name: [getattr(record, name) for record, _ in ordered] for name in FACTS}
    columns["image"] = [image for _, image in ordered]
    write_table(path, pa.table(columns, schema=SCHEMA))


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file of the pipeline. Raises ProjectError if it is absent or broken, also while it is read."""
    try:
        with pq.ParquetFile(path, memory_map=True) as file:  # pq.read_table imports pandas: 0.3 s of an empty slot's 0.8
            yield file
    except FileNotFoundError as error:
        raise ProjectError(f"{path.name} is missing; run `dvc repro` (or `dvc checkout`) and retry") from error
    except (pa.ArrowException, KeyError, OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"{path.name} is not a complete Parquet file; run `dvc checkout` and retry") from error


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file of the pipeline, or some columns of it. Raises ProjectError if it is absent or broken."""
    with opened(path) as file:
        table = file.read(list(columns) if columns else None)
        return table.select(list(columns)) if columns else table


def read_columns(table: pa.Table, shared: Sequence[str] = ()) -> list[list[Any]]:
    """The columns as Python lists. In the `shared` ones equal values are one object: a million labels take no million strings."""
    columns = []
    for name in table.column_names:
        column = table[name]
        if name in shared:
            coded = column.combine_chunks().dictionary_encode()
            values = coded.dictionary.to_pylist()
            columns.append([values[code] for code in coded.indices.to_numpy()])
        else:
            columns.append(column.to_pylist())
    return columns


def read_records(
    path: Path, split: str | None = None, only: Collection[str] | None = None, people: Collection[str] | None = None
) -> list[Record]:
    """The facts of a file's records without their images, sorted by id.

    Args: only: ids; people: subjects; of other records nothing is made.
    """
    import pyarrow.compute as pc

    table = read_table(path, FACTS)
    if split is not None:
        table = table.filter(pc.equal(table["split"], split))
    if only is not None:
        table = table.filter(pc.is_in(table["id"], value_set=pa.array(only, pa.string())))
    if people is not None:
        table = table.filter(pc.is_in(table["subject"], value_set=pa.array(people, pa.string())))
    columns = read_columns(table, shared=("label", "subject", "split"))
    return [Record(*row) for row in zip(*columns, strict=True)]


def _rows(path: Path, ids: Collection[str]) -> pa.Table:
    """Id and image of some records, from the row groups that hold them. Raises: ProjectError."""
    import pyarrow.compute as pc

    with opened(path) as file:
        inside = pc.is_in(file.read(["id"])["id"], value_set=pa.array(ids, pa.string())).to_numpy(zero_copy_only=False)
        places, groups, start = inside.nonzero()[0], [], 0
        for group in range(file.num_row_groups if len(places) else 0):
            stop = start + file.metadata.row_group(group).num_rows
            if places.searchsorted(start) < places.searchsorted(stop):
                groups.append(group)
            start = stop
        table = file.read_row_groups(groups, ["id", "image"]) if groups else file.schema_arrow.empty_table()
    return table.select(["id", "image"]).filter(pc.is_in(table["id"], value_set=pa.array(ids, pa.string())))


def read_images(path: Path, wanted: dict[str, str]) -> dict[str, bytes]:
    """The images of some records of one file, each checked against its digest.

    Args:
        wanted: record id to SHA-256.
    Raises: DigestMismatchError if an image is missing or is not the one that was promised.
    """
    table = _rows(path, wanted)
    images: dict[str, bytes] = dict(zip(table["id"].to_pylist(), table["image"].to_pylist(), strict=True))
    for identity, promised in wanted.items():
        if identity not in images:
            raise DigestMismatchError(f"{path.name}: record {identity[:12]} is missing; run `dvc repro split` and retry")
        digest = sha256(images[identity])
        if digest != promised:
            raise DigestMismatchError(
                f"{path.name}: sha256 mismatch: record {identity[:12]} says {promised[:12]}, its image has {digest[:12]}; "
                "run `dvc repro split` and retry"
            )
    return images


def images_of(path: Path, records: Sequence[Record]) -> list[bytes]:
    """The images of records of one file, in their order. Raises: as `read_images`."""
    images = read_images(path, {record.id: record.sha256 for record in records})
    return [images[record.id] for record in records]


def labels_of(records: Iterable[Record]) -> list[str]:
    """The distinct labels, sorted."""
    return sorted({record.label for record in records})
