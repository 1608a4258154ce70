"""Records (one image of one subject) and the Parquet files that hold them.

A part is one file, or a folder of shards, `0000.parquet` and so on: each holds all of the part's records of the subjects whose
hash falls to it. Whoever reads a part reads the same records in the same order either way.

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

from lmeraser.core.digest import sha256, shard_of
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
SHARD = b"shard"  # in the schema of a shard's file: `3 of 7`, so that a list that lost its end is told from a shorter one
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


def write_records(path: Path, records: Sequence[tuple[Record, bytes]], number: int = 0, count: int = 1) -> None:
    """Write records and their images, sorted by id. Args: number, count: which shard of how many the file is, if it is one."""
    ordered = sorted(records, key=lambda pair: pair[0].id)
    columns = {name: [getattr(record, name) for record, _ in ordered] for name in FACTS}
    columns["image"] = [image for _, image in ordered]
    schema = SCHEMA if count == 1 else SCHEMA.with_metadata({SHARD: _mark(number, count)})
    write_table(path, pa.table(columns, schema=schema))


def shard_file(part: Path, number: int) -> Path:
    """A shard in its part's folder."""
    return part / f"{number:04d}.parquet"


def _mark(number: int, count: int) -> bytes:
    return f"{number} of {count}".encode()


def _told(path: Path) -> str:
    """A file's name for people."""
    return f"{path.parent.name}/{path.name}" if path.parent.suffix == path.suffix else path.name


@dataclass(frozen=True)
class Part:
    """A file of records or a folder of shards, or some of these. Attributes: numbers: of these; count: of all of them."""

    path: Path
    numbers: tuple[int, ...]
    count: int
    divided: bool

    @classmethod
    def of(cls, path: Path) -> "Part":
        """Raises: ProjectError if a folder holds anything but the shards from 0000 on."""
        if not path.is_dir():
            return cls(path, (0,), 1, False)
        names = sorted(file.name for file in path.iterdir())
        if not names or names != [shard_file(path, number).name for number in range(len(names))]:
            raise ProjectError(
                f"{path.name}: {len(names)} files that are not the shards from 0000 to {max(len(names) - 1, 0):04d}; "
                "delete the folder, run `dvc checkout` and retry"
            )
        return cls(path, tuple(range(len(names))), len(names), True)

    @property
    def files(self) -> list[Path]:
        return [shard_file(self.path, number) for number in self.numbers] if self.divided else [self.path for _ in self.numbers]

    def only(self, numbers: Iterable[int]) -> "Part":
        """Some of its shards."""
        return Part(self.path, tuple(sorted(numbers)), self.count, self.divided)

    def holding(self, people: Iterable[str]) -> "Part":
        """The shards that may hold a record of these subjects."""
        if self.count == 1:
            return self
        return self.only({shard_of(subject, self.count) for subject in people} & {*self.numbers})

    def each(self) -> "Iterator[Part]":
        """Shard by shard."""
        return (self.only([number]) for number in self.numbers)

    @contextmanager
    def opened(self) -> Iterator[pq.ParquetFile]:
        """The file of a part of one. Raises: ProjectError, also if it is not the shard that its name says."""
        (number,), (path,) = self.numbers, self.files
        with opened(path) as file:
            if self.divided and (file.schema_arrow.metadata or {}).get(SHARD) != _mark(number, self.count):
                raise ProjectError(
                    f"{_told(path)} is not shard {number} of {self.count}: the folder lacks some, or has others; "
                    "delete it, run `dvc checkout` and retry"
                )
            yield file


def _part(part: Path | Part) -> Part:
    return part if isinstance(part, Part) else Part.of(part)


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file of the pipeline. Raises ProjectError if it is absent or broken, also while it is read."""
    try:
        with pq.ParquetFile(path, memory_map=True) as file:  # pq.read_table imports pandas: 0.3 s of an empty slot's 0.8
            yield file
    except FileNotFoundError as error:
        raise ProjectError(f"{_told(path)} is missing; run `dvc repro` (or `dvc checkout`) and retry") from error
    except (pa.ArrowException, KeyError, OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"{_told(path)} is not a complete Parquet file; run `dvc checkout` and retry") from error


def read_table(path: Path | Part, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file of the pipeline, or some columns of it; of shards all rows, by id as in one file.

    Raises: ProjectError if it is absent or broken.
    """
    part = _part(path)
    if len(part.numbers) == 1:
        with part.opened() as file:
            table = file.read(list(columns) if columns else None)
            return table.select(list(columns)) if columns else table
    wanted = list(columns or SCHEMA.names)
    read = list(dict.fromkeys([*wanted, "id"]))
    tables = [read_table(shard, read).replace_schema_metadata() for shard in part.each()]
    # An empty table would import pandas, a third of a second before a request is in effect.
    return pa.concat_tables(tables or [SCHEMA.empty_table().select(read)]).sort_by("id").select(wanted)


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
    path: Path | Part, split: str | None = None, only: Collection[str] | None = None, people: Collection[str] | None = None
) -> list[Record]:
    """The facts of a part's records without their images, sorted by id.

    Args: only: ids; people: subjects; of other records nothing is made.
    """
    import pyarrow.compute as pc

    part = _part(path)
    table = read_table(part if people is None else part.holding(people), FACTS)
    if split is not None:
        table = table.filter(pc.equal(table["split"], split))
    if only is not None:
        table = table.filter(pc.is_in(table["id"], value_set=pa.array(only, pa.string())))
    if people is not None:
        table = table.filter(pc.is_in(table["subject"], value_set=pa.array(people, pa.string())))
    columns = read_columns(table, shared=("label", "subject", "split"))
    return [Record(*row) for row in zip(*columns, strict=True)]


def _rows(part: Part, ids: pa.Array) -> pa.Table:
    """Id and image of some records of one file, from the row groups that hold them. Raises: ProjectError."""
    import pyarrow.compute as pc

    with part.opened() as file:
        inside = pc.is_in(file.read(["id"])["id"], value_set=ids).to_numpy(zero_copy_only=False)
        places, groups, start = inside.nonzero()[0], [], 0
        for group in range(file.num_row_groups if len(places) else 0):
            stop = start + file.metadata.row_group(group).num_rows
            if places.searchsorted(start) < places.searchsorted(stop):
                groups.append(group)
            start = stop
        table = file.read_row_groups(groups, ["id", "image"]) if groups else file.schema_arrow.empty_table()
    return table.select(["id", "image"]).filter(pc.is_in(table["id"], value_set=ids))


def read_images(path: Path | Part, wanted: dict[str, str]) -> dict[str, bytes]:
    """The images of some records of one part, each checked against its digest.

    Args:
        wanted: record id to SHA-256. Whose they are is not known, so the ids of every shard are looked at until all are there.
    Raises: DigestMismatchError if an image is missing or is not the one that was promised.
    """
    part, ids = _part(path), pa.array(wanted, pa.string())
    images: dict[str, bytes] = {}
    for shard in part.each():
        table = _rows(shard, ids)
        images |= zip(table["id"].to_pylist(), table["image"].to_pylist(), strict=True)
        if len(images) == len(wanted):
            break
    for identity, promised in wanted.items():
        if identity not in images:
            raise DigestMismatchError(f"{part.path.name}: record {identity[:12]} is missing; run `dvc repro split` and retry")
        digest = sha256(images[identity])
        if digest != promised:
            raise DigestMismatchError(
                f"{part.path.name}: sha256 mismatch: record {identity[:12]} says {promised[:12]}, its image has {digest[:12]}; "
                "run `dvc repro split` and retry"
            )
    return images


def images_of(path: Path | Part, records: Sequence[Record]) -> list[bytes]:
    """The images of records of one part, in their order, from their subjects' shards alone. Raises: as `read_images`."""
    part = _part(path).holding({record.subject for record in records})
    images = read_images(part, {record.id: record.sha256 for record in records})
    return [images[record.id] for record in records]


def labels_of(records: Iterable[Record]) -> list[str]:
    """The distinct labels, sorted."""
    return sorted({record.label for record in records})
