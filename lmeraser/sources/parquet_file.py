"""A manifest in one Parquet file: the five columns as exact text, and the same file without some rows.

Read by pyarrow, column by column: pandas would make floats of whole numbers beside an empty cell, and 1008 would be 1008.0.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lmeraser.core.errors import ManifestError, StepFailedError
from lmeraser.sources.base import COLUMNS

BROKEN = (pa.ArrowException, OSError, ValueError, KeyError, OverflowError)


def _opened(path: Path, name: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except BROKEN as error:
        raise ManifestError(
            f"{name} cannot be read as parquet ({type(error).__name__}); expected one complete file: write it again"
        ) from error


def read_parquet(path: Path, name: str) -> list[list[str]]:
    """The values of each of COLUMNS; an empty cell is ''. Raises: ManifestError naming the column, and no value."""
    with _opened(path, name) as file:
        columns = file.schema_arrow.names
        for column in COLUMNS:
            if column not in columns:
                raise ManifestError(f"{name}: column {column} is missing; expected the columns {','.join(COLUMNS)}")
            if columns.count(column) > 1:
                raise ManifestError(f"{name}: column {column} occurs {columns.count(column)} times; keep one of them")
        for column in COLUMNS:  # by the schema, before anything is read
            _kind(file.schema_arrow.field(column).type, column, name)
        try:
            table = file.read(list(COLUMNS), use_threads=False)
        except BROKEN as error:
            raise ManifestError(
                f"{name} cannot be read as parquet ({type(error).__name__}); the file is damaged: write it again"
            ) from error
    return [_text(table[column], column, name) for column in COLUMNS]


def read_column(path: Path, name: str, column: str) -> list[str]:
    """The values of a further column as text; dates and times as YYYY-MM-DD (UTC), an empty cell is ''. Raises: ManifestError."""
    with _opened(path, name) as file:
        count = file.schema_arrow.names.count(column)
        if count != 1:
            raise ManifestError(
                f"{name}: column {column} occurs {count} times, expected once, since params.yaml names it; correct one of the two"
            )
        try:
            values = file.read([column], use_threads=False)[column]
            if pa.types.is_temporal(values.type):
                return [day_of(value) for value in values.to_pylist()]
        except BROKEN as error:
            raise ManifestError(
                f"{name}: column {column} cannot be read ({type(error).__name__}); write it as text, YYYY-MM-DD"
            ) from error
    return _text(values, column, name)


def day_of(value: Any) -> str:
    """A date or a time as YYYY-MM-DD, in UTC where it has a zone; '' for None."""
    if isinstance(value, datetime) and value.tzinfo:
        value = value.astimezone(UTC)
    return "" if value is None else value.isoformat()[:10]


def _kind(kind: pa.DataType, column: str, name: str) -> str:
    """`text`, `number` or `empty`. Raises: ManifestError for what is no exact text."""
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type, column, name)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or (pa.types.is_decimal(kind) and kind.scale == 0):
        return "number"
    if pa.types.is_null(kind):
        return "empty"
    if isinstance(kind, pa.BaseExtensionType):
        what = "values of a type of their own"
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        what = "floats, whose names are not exact"
    elif pa.types.is_nested(kind):
        what = "lists or structs"
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        what = "bytes (binary)"
    else:
        what = "neither text nor whole numbers"
    raise ManifestError(f"{name}: column {column} holds {what}; expected text (UTF-8) or whole numbers: write it as text")


def _text(column: pa.ChunkedArray, title: str, name: str) -> list[str]:
    kind = _kind(column.type, title, name)
    if kind == "empty":
        return [""] * len(column)
    try:
        column.validate(full=True)  # also whether text is UTF-8
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()  # equal values become one object
        values: list[str] = []
        for chunk in column.chunks:
            words = ["" if word is None else str(word) for word in chunk.dictionary.to_pylist()]
            values += ["" if code is None else words[code] for code in chunk.indices.to_pylist()]
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ManifestError(f"{name}: column {title} holds bytes that are not UTF-8; write it as text in UTF-8") from error
    return values


def write_without(path: Path, draft: Path, erased_rows: set[int]) -> None:
    """Copy a Parquet file without some rows (from 0): schema, metadata, types, row groups and compression stay.

    Raises: ArrowException, OSError; StepFailedError if what was written is not that.
    """
    _copy(path, draft, erased_rows)
    _compare(path, draft, len(erased_rows))


def check_writable(path: Path, name: str) -> None:
    """Raise ManifestError unless the file can be written again as it is; tried in memory."""
    stream = pa.BufferOutputStream()
    try:
        _copy(path, stream, set())
        _compare(path, pa.BufferReader(stream.getvalue()), 0)
    except (*BROKEN, StepFailedError) as error:
        raise ManifestError(
            f"source.erase is true, but {name} cannot be written again with its types ({type(error).__name__}); write it again "
            "with pandas or pyarrow, or set source.erase to false"
        ) from error


def _copy(path: Path, target: Any, erased_rows: set[int]) -> None:
    with pq.ParquetFile(path) as file:
        first = 0
        with pq.ParquetWriter(target, file.schema_arrow, **_style(file)) as writer:
            for number in range(file.num_row_groups):
                group = file.read_row_group(number, use_threads=False)
                stays = pa.array([first + row not in erased_rows for row in range(len(group))], pa.bool_())
                first += len(group)
                if len(kept := _without(group, stays)):
                    writer.write_table(kept, row_group_size=len(kept))


def _compare(path: Path, written: Any, erased: int) -> None:
    with pq.ParquetFile(path) as old, pq.ParquetFile(written) as new:
        whole = new.metadata.num_rows == old.metadata.num_rows - erased
        if not whole or not new.schema_arrow.equals(old.schema_arrow, check_metadata=True):
            raise StepFailedError(
                "source: the Parquet manifest cannot be written with its types; write it again without the rows"
            )


def _without(group: pa.Table, stays: pa.Array) -> pa.Table:
    """The rows that stay. A dictionary forgets the words that only the others used."""
    import pyarrow.compute as pc

    kept, left = group.filter(stays), group.filter(pc.invert(stays))
    for place, field in enumerate(group.schema):
        if pa.types.is_dictionary(field.type):
            kept = kept.set_column(place, field, _forget_words(kept.column(place), left.column(place)))
    return kept


def _forget_words(kept: pa.ChunkedArray, left: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    whole = pa.chunked_array([*kept.chunks, *left.chunks], kept.type).unify_dictionaries()
    if not whole.num_chunks:
        return kept
    words, cut = whole.chunk(0).dictionary, kept.num_chunks
    codes = [chunk.indices.cast(pa.int64()) for chunk in whole.chunks]
    used = pa.chunked_array(codes[:cut], pa.int64()).unique()
    alone = pc.is_in(pa.chunked_array(codes[cut:], pa.int64()).unique(), value_set=used)
    theirs = pa.chunked_array(codes[cut:], pa.int64()).unique().filter(pc.invert(alone)).drop_null()
    order = pa.array([code for code in range(len(words)) if code not in set(theirs.to_pylist())], pa.int64())
    chunks = [
        pa.DictionaryArray.from_arrays(
            pc.index_in(chunk, value_set=order).cast(kept.type.index_type), words.take(order), ordered=kept.type.ordered
        )
        for chunk in codes[:cut]
    ]
    return pa.chunked_array(chunks, kept.type)


def _style(file: pq.ParquetFile) -> dict[str, Any]:
    """How a Parquet file is written: version, and by column codec, dictionary and statistics, as its first row group has them."""
    style: dict[str, Any] = {"version": file.metadata.format_version}
    if not file.num_row_groups:
        return style
    group = file.metadata.row_group(0)
    columns = [group.column(place) for place in range(group.num_columns)]
    codecs = {column.path_in_schema: column.compression.replace("UNCOMPRESSED", "NONE") for column in columns}
    coded = [column.path_in_schema for column in columns if {"PLAIN_DICTIONARY", "RLE_DICTIONARY"} & set(column.encodings)]
    counted = [column.path_in_schema for column in columns if column.is_stats_set]
    # What Spark and Impala write for a time. Version 1.0 has no other of nanoseconds.
    style["use_deprecated_int96_timestamps"] = any(column.physical_type == "INT96" for column in columns)
    return style | {"compression": codecs, "use_dictionary": coded or False, "write_statistics": counted or False}
