"""Columns in memory: the values that pyarrow itself would make."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.data.columns import among, texts, whole_numbers

WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs"])))


@given(WORDS)
def test_texts_are_the_array_that_pyarrow_makes(values: list[str]) -> None:
    made = texts(values)
    made.validate(full=True)
    assert made.equals(pa.array(values, pa.string()))


@given(WORDS, WORDS)
def test_among_says_what_pyarrow_says(column: list[str], values: list[str]) -> None:
    stacked = pa.chunked_array([pa.array(column, pa.string()), pa.array(values, pa.string())])
    assert among(stacked, values).equals(pc.is_in(stacked, value_set=pa.array(values, pa.string())))


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1))), st.integers(0, 3))
def test_whole_numbers_are_those_of_the_column_wherever_it_begins(chunks: list[list[int]], start: int) -> None:
    column = pa.chunked_array([pa.array(chunk, pa.int64())[start:] for chunk in chunks], pa.int64())
    assert whole_numbers(column).tolist() == column.to_pylist()


@pytest.mark.parametrize("column", [pa.chunked_array([pa.array([1, None])]), pa.chunked_array([pa.array([1], pa.int32())])])
def test_whole_numbers_of_another_type_or_with_gaps_are_refused(column: pa.ChunkedArray) -> None:
    with pytest.raises(TypeError, match="expected int64 with none"):
        whole_numbers(column)
