"""Rows of any Parquet file that name an erased subject, record or image: also where a column holds lists, structs, dictionaries,
bytes, extension types or text that is no UTF-8. What cannot be read is told, never taken for empty.
"""

from collections.abc import Callable, Container, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

MAGIC, SEALED = b"PAR1", b"PARE"  # SEALED: its footer is encrypted
PEOPLE, RECORDS = ("subject", "unit"), ("id", "sha256")
ROWS = 4096  # read at once
UNREADABLE = "unreadable"
PLAIN = {"PLAIN", "RLE", "BIT_PACKED"}  # encodings that leave values as they are


class Either(Container[str]):
    """What one of two holds."""

    def __init__(self, first: Container[str], second: Container[str]) -> None:
        self._first, self._second = first, second

    def __contains__(self, value: object) -> bool:
        return value in self._first or value in self._second


def leaves(array: Any) -> Iterator[Any]:
    """The arrays of plain values within an array of any type."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        yield from leaves(array.storage)
    elif pa.types.is_dictionary(kind):
        yield from leaves(array.dictionary_decode())
    elif pa.types.is_run_end_encoded(kind):
        yield from leaves(array.values)
    elif pa.types.is_struct(kind):
        for child in array.flatten():
            yield from leaves(child)
    elif pa.types.is_map(kind):
        yield from leaves(array.keys)
        yield from leaves(array.items)
    elif pa.types.is_union(kind):
        for place in range(kind.num_fields):
            yield from leaves(array.field(place))
    elif pa.types.is_nested(kind):
        yield from leaves(array.flatten())
    else:
        yield array


def _is_bytes(kind: Any) -> bool:
    """Whether values are text or bytes."""
    names = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "fixed_size_binary")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in names)


def raw_values(array: Any) -> Iterator[bytes]:
    """Every value of the text and binary leaves, as bytes."""
    for leaf in leaves(array):
        if _is_bytes(leaf.type):
            binary = leaf if pa.types.is_fixed_size_binary(leaf.type) else leaf.cast(pa.large_binary())
            yield from (value for value in binary.to_pylist() if value is not None)


def texts(array: Any) -> Iterator[str]:
    """Every value, as a manifest would spell it; digests that are stored as bytes in hex as well."""
    for leaf in leaves(array):
        if _is_bytes(leaf.type):
            for value in raw_values(leaf):
                yield value.decode("utf-8", "replace")
                if len(value) in (16, 32):
                    yield value.hex()
        elif not pa.types.is_null(leaf.type):
            for value in leaf.to_pylist():
                if isinstance(value, float) and value.is_integer():
                    yield str(int(value))
                if value is not None:
                    yield str(value)


def _hides(file: Any) -> bool:
    """Whether the bytes of the file's values are not in the file as they are."""
    meta = file.metadata
    chunks = (meta.row_group(group).column(place) for group in range(meta.num_row_groups) for place in range(meta.num_columns))
    return any(chunk.compression != "UNCOMPRESSED" or not set(chunk.encodings) <= PLAIN for chunk in chunks)


def is_parquet(stream: BinaryIO) -> bool:
    stream.seek(0)
    return stream.read(4) in (MAGIC, SEALED)


def shows_its_values(stream: BinaryIO) -> bool:
    """Whether a file's bytes show its values, as they do unless it is Parquet: ids and digests of records, and any text."""
    if not is_parquet(stream):
        return True
    stream.seek(0)
    try:
        with pq.ParquetFile(stream) as file:
            records = [column.type for column in file.schema_arrow if column.name.lower() in RECORDS]
            return not _hides(file) and all(pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in records)
    except Exception:  # whatever a library says of an odd file
        return False


def parquet_hits(
    stream: BinaryIO,
    is_erased: Callable[[str], bool],
    records: Container[str],
    search: Callable[[list[bytes]], int] | None = None,
) -> dict[str, int]:
    """Rows of a Parquet file that name an erased subject or record; nothing if it is no Parquet file.

    Args:
        records: ids of records and digests of images, looked for in the columns `id` and `sha256`.
        search: counts search terms in values; it is given those that compression or an encoding hides from a search of the file.
    Returns: rows by kind: subject, record, bytes; and `unreadable`: 1 if it is damaged, encrypted or of an unknown kind.
    """
    if not is_parquet(stream):
        return {}
    stream.seek(0)
    hits = {"subject": 0, "record": 0, "bytes": 0}
    erased: dict[str, bool] = {}
    try:
        with pq.ParquetFile(stream) as file:
            top = [name for name in file.schema_arrow.names if name.lower() in (*PEOPLE, *RECORDS)]
            hidden = search is not None and _hides(file)
            for batch in file.iter_batches(ROWS, columns=None if hidden else list(dict.fromkeys(top))):
                people = 0
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    if name.lower() in PEOPLE:
                        flags = [
                            erased[text] if text in erased else erased.setdefault(text, is_erased(text)) for text in texts(column)
                        ]
                        people = max(people, sum(flags))
                    elif name.lower() in RECORDS:
                        hits["record"] += sum(value in records for value in texts(column))
                    if hidden and search is not None:
                        hits["bytes"] += search(list(raw_values(column)))
                hits["subject"] += people
    except Exception:  # whatever a library says of an odd file: it is told, and never ends a scan
        return {kind: count for kind, count in hits.items() if count} | {UNREADABLE: 1}
    return {kind: count for kind, count in hits.items() if count}
