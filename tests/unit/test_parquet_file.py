"""Parquet: whole numbers and text to the letter, everything else refused by its column; and a copy without some rows."""

import decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import refused
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.errors import ManifestError
from lmeraser.sources.base import COLUMNS
from lmeraser.sources.manifest import ManifestSource

WIDTHS = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]


def table(subjects: pa.Array, **others: Any) -> pa.Table:
    n = len(subjects)
    columns = {"path": [f"{i}.png" for i in range(n)], "label": ["cat"] * n, "subject": subjects}
    return pa.table(columns | {"visibility": ["private"] * n, "split": ["train"] * n} | others)


def source_of(written: pa.Table, folder: Path, **style: Any) -> ManifestSource:
    pq.write_table(written, folder / "manifest.parquet", **style)
    return ManifestSource.open(folder)


def subjects_of(source: ManifestSource) -> list[str]:
    return source.table()["subject"].tolist()


@given(st.sampled_from(WIDTHS), st.data())
def test_whole_numbers_of_every_width_are_exact_also_beside_empty_cells(
    tmp_path_factory: pytest.TempPathFactory, kind: pa.DataType, data: st.DataObject
) -> None:
    low, high = (0, 2**kind.bit_width - 1) if "u" in str(kind) else (-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1)
    ids = data.draw(st.lists(st.integers(low, high) | st.none(), min_size=1, max_size=5))
    coded = data.draw(st.booleans())
    array = pa.array(ids, kind).dictionary_encode() if coded else pa.array(ids, kind)
    source = source_of(table(array), tmp_path_factory.mktemp("source"))
    assert subjects_of(source) == ["" if number is None else str(number) for number in ids]


TEXTS = {
    "string": pa.string(),
    "large": pa.large_string(),
    "view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int8(), pa.string()),
}


@pytest.mark.parametrize("kind", TEXTS.values(), ids=TEXTS)
def test_every_kind_of_text_is_read_as_it_is(tmp_path: Path, kind: pa.DataType) -> None:
    words = ["NA", "001", "1.0", "Zoé", "nan"]
    assert subjects_of(source_of(table(pa.array(words).cast(kind)), tmp_path)) == words


REFUSED = {
    "floats": pa.array([1008.0, 2.0]),
    "floats with an empty cell": pa.array([1008.0, None]),
    "half floats": pa.array([1008.0, 2.0]).cast(pa.float16()),
    "decimals": pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.00")]),
    "lists": pa.array([["CANARY"], []]),
    "structs": pa.array([{"name": "CANARY"}, None]),
    "maps": pa.array([[("CANARY", "x")], []], pa.map_(pa.string(), pa.string())),
    "bytes": pa.array([b"CANARY", b"x"]),
    "bytes of one size": pa.array([b"CANARY", b"CANARY"], pa.binary(6)),
    "identifiers": pa.array([b"CANARY-CANARY-16"] * 2, pa.uuid()),
    "days": pa.array([0, 1], pa.date32()),
    "dictionary of floats": pa.array([1.0, 2.0]).dictionary_encode(),
    "latin-1": pa.Array.from_buffers(pa.string(), 2, pa.array([b"CANARY-\xe9", b"x"]).buffers()),
}


@pytest.mark.parametrize("subjects", REFUSED.values(), ids=REFUSED)
def test_column_without_exact_text_is_refused_by_its_name(tmp_path: Path, subjects: pa.Array) -> None:
    source = source_of(table(subjects), tmp_path)
    message = refused(ManifestError, source.table)
    assert "column subject" in message


def test_whole_decimals_of_a_database_are_exact(tmp_path: Path) -> None:
    ids = pa.array([decimal.Decimal(10**30 + 7), decimal.Decimal(1008)], pa.decimal128(38, 0))
    assert subjects_of(source_of(table(ids), tmp_path)) == [str(10**30 + 7), "1008"]


def test_row_that_is_empty_throughout_is_no_record(tmp_path: Path) -> None:
    whole = table(pa.array([2**60, 2**60 + 1]))
    empty = pa.table({name: pa.nulls(1, whole.schema.field(name).type) for name in whole.column_names})
    source = source_of(pa.concat_tables([whole, empty, whole]), tmp_path)
    assert source.table()["line"].tolist() == [1, 2, 4, 5]
    assert set(subjects_of(source)) == {str(2**60), str(2**60 + 1)}


def test_column_that_is_missing_or_stands_twice_is_refused(tmp_path: Path) -> None:
    twice = table(pa.array(["a"])).append_column("label", pa.array(["dog"]))
    assert "column label occurs 2 times" in refused(ManifestError, source_of(twice, tmp_path).table)
    for column in COLUMNS:
        less = table(pa.array(["a"])).drop_columns([column])
        assert f"column {column} is missing" in refused(ManifestError, source_of(less, tmp_path).table)


def test_other_columns_are_not_even_read(tmp_path: Path) -> None:
    embedding = pa.array([[1.0, float("nan")], None], pa.list_(pa.float32()))
    assert subjects_of(source_of(table(pa.array(["a", "b"]), embedding=embedding), tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("named", ["folder", "manifest"])
def test_folder_of_parquet_is_refused_by_what_is_wanted(tmp_path: Path, named: str) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "manifest.parquet", partition_cols=["a"])
    path = tmp_path / "manifest.parquet" if named == "manifest" else tmp_path
    assert "is a folder" in refused(ManifestError, lambda: ManifestSource.open(path))


# without a person


def rich(count: int) -> pa.Table:
    """Columns of the user's own that pandas would change."""
    number = range(count)
    nullable = [None if index == 3 else 2**60 + index for index in number]
    return table(
        pa.array([f"person-{index % 5}" for index in number]).dictionary_encode(),
        photo_id=pa.array(nullable, pa.int64()),
        stars=pa.array([None if index == 3 else index % 5 for index in number], pa.uint8()),
        taken=pa.array([index * 10**9 + 1 for index in number], pa.timestamp("ns", "UTC")),
        vector=pa.array([[index / 3, None] for index in number], pa.list_(pa.float32())),
        nothing=pa.nulls(count),
    ).replace_schema_metadata({b"owner": b"the team"})


STYLES: list[dict[str, Any]] = [
    {},
    {"compression": "zstd", "row_group_size": 7},
    {"use_dictionary": False, "version": "1.0", "use_deprecated_int96_timestamps": True},
]


@pytest.mark.parametrize("style", STYLES)
def test_rows_go_and_types_values_metadata_groups_and_compression_stay(tmp_path: Path, style: dict[str, Any]) -> None:
    source = source_of(rich(20), tmp_path, **style)
    source.check_erasable()
    before, old = pq.read_table(source.manifest), pq.ParquetFile(source.manifest).metadata
    assert source.drop(lambda subject: subject == "person-2") == 4
    after, new = pq.read_table(source.manifest), pq.ParquetFile(source.manifest).metadata
    assert after.schema.equals(before.schema, check_metadata=True)
    assert after.to_pylist() == [row for row in before.to_pylist() if row["subject"] != "person-2"]
    assert new.num_row_groups == old.num_row_groups
    assert new.format_version == old.format_version
    columns = range(old.num_columns)
    for fact in ("compression", "path_in_schema", "is_stats_set"):
        facts = [[getattr(file.row_group(0).column(place), fact) for place in columns] for file in (old, new)]
        assert facts[0] == facts[1]
    assert source.drop(lambda subject: subject == "person-2") == 0


def test_dictionary_forgets_the_words_of_who_is_gone_and_keeps_the_others_in_order(tmp_path: Path) -> None:
    names = pd.Categorical(["ben", "CANARY-ada", "ben", "cem"], categories=["cem", "CANARY-ada", "unused", "ben"], ordered=True)
    frame = pd.DataFrame({"path": list("abcd"), "label": "x", "subject": names, "visibility": "private", "split": "train"})
    frame.to_parquet(tmp_path / "manifest.parquet", index=False, compression=None)
    source = ManifestSource.open(tmp_path)
    assert b"CANARY-ada" in source.manifest.read_bytes()
    source.drop(lambda subject: "ada" in subject)
    assert b"CANARY-ada" not in source.manifest.read_bytes()
    left = pd.read_parquet(source.manifest)["subject"]
    assert left.tolist() == ["ben", "ben", "cem"]
    assert isinstance(left.dtype, pd.CategoricalDtype)
    assert left.dtype.ordered
    assert left.cat.categories.tolist() == ["cem", "unused", "ben"]


def test_index_of_pandas_stays(tmp_path: Path) -> None:
    frame = table(pa.array(list("abcd"))).to_pandas().assign(number=[7, 3, 9, 1]).set_index("number")
    frame.to_parquet(tmp_path / "manifest.parquet")
    ManifestSource.open(tmp_path).drop(lambda subject: subject == "b")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "manifest.parquet"), frame.drop(3))
