"""Columns in memory, from Python and to numpy.

`pa.array`, `pa.scalar` and `to_numpy` import pandas to ask whether something of it was given or is wanted. That is a third of a
second: longer than all else between a request and its being in effect. What accepts requests makes its values here.
"""

from collections.abc import Collection, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def texts(values: Iterable[str]) -> pa.StringArray:
    """The values as an array, in their order."""
    encoded = [value.encode() for value in values]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int32)
    offsets[1:] = np.cumsum([len(value) for value in encoded], dtype=np.int64)
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(encoded)))


def among(column: pa.ChunkedArray, values: Collection[str]) -> pa.ChunkedArray:
    """Which of a column's texts are one of the values: n booleans."""
    return pc.is_in(column, value_set=texts(values))


def whole_numbers(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """(n,) of a column of 64-bit whole numbers. Raises: TypeError if it is another one, or a value is missing."""
    if column.type != pa.int64() or column.null_count:
        raise TypeError(f"a column of {column.type} with {column.null_count} missing values, expected int64 with none")
    chunks = [chunk for chunk in column.chunks if len(chunk)]  # of an empty one there may be no buffer
    values = [np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset : chunk.offset + len(chunk)] for chunk in chunks]
    return np.concatenate([np.zeros(0, dtype=np.int64), *values])
