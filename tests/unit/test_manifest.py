"""Manifest sources: what is read, what is refused, and what `drop` deletes."""

import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from builders import (
    CANARY_LABEL,
    CANARY_PATH,
    CANARY_SUBJECT,
    ROOT,
    Row,
    contents,
    image_params,
    make_params,
    png,
    refused,
    standard_rows,
    write_manifest,
    write_source,
)

from lmeraser.core.errors import ImageError, ManifestError, ParamsError, StepFailedError
from lmeraser.sources import COLUMNS, ErasableSource, open_erasable_source, open_source
from lmeraser.sources.digits import DigitsSource, assign_subjects
from lmeraser.sources.manifest import ManifestSource

HEADER = ",".join(COLUMNS)


def source_of(text: str | bytes, folder: Path) -> ManifestSource:
    path = folder / "manifest.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return ManifestSource.open(path)


def ada(subject: str) -> bool:
    return subject == "ada"


def rows_of(source: ManifestSource | DigitsSource) -> list[list[str]]:
    return source.table().drop(columns="line").to_numpy().tolist()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_csv_and_parquet_give_the_same_table(tmp_path: Path, kind: str) -> None:
    folder = write_source(tmp_path, standard_rows(), kind)
    table = ManifestSource.open(folder).table()
    assert table["line"].tolist() == list(range(2, 9) if kind == "csv" else range(1, 8))
    assert table["subject"].tolist() == [row.subject for row in standard_rows()]
    assert [table[column].map(type).unique().tolist() for column in COLUMNS] == [[str]] * 5


def test_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    source = source_of(b"\xef\xbb\xbf" + f"{HEADER}\na.png,1,anna,public,train\n".encode(), tmp_path)
    assert rows_of(source) == [["a.png", "1", "anna", "public", "train"]]


def test_words_that_pandas_takes_for_missing_are_kept(tmp_path: Path) -> None:
    source = source_of(f"{HEADER}\na.png,NA,null,public,train\nb.png,007,None,public,test\n", tmp_path)
    assert rows_of(source) == [["a.png", "NA", "null", "public", "train"], ["b.png", "007", "None", "public", "test"]]


def test_composed_and_decomposed_accents_are_one_subject(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "Zoé Müller")
    decomposed = unicodedata.normalize("NFD", composed)
    assert composed != decomposed
    source = source_of(f"{HEADER}\na.png,1,{composed},public,train\nb.png,1,{decomposed},public,train\n", tmp_path)
    assert source.table()["subject"].unique().tolist() == [composed]


def test_space_around_a_value_is_trimmed_but_a_path_is_kept_as_it_is(tmp_path: Path) -> None:
    source = source_of(f"{HEADER}\n a.png, 1 ,\tanna ,public , train\n", tmp_path)
    assert rows_of(source) == [[" a.png", "1", "anna", "public", "train"]]


def test_columns_may_stand_in_any_order_beside_others(tmp_path: Path) -> None:
    source = source_of("split,note,subject,label,visibility,path\ntrain,x,anna,1,public,a.png\n", tmp_path)
    assert rows_of(source) == [["a.png", "1", "anna", "public", "train"]]


@pytest.mark.parametrize("column", COLUMNS)
def test_each_missing_column_is_refused_by_name(tmp_path: Path, column: str) -> None:
    names = [name if name != column else "other" for name in COLUMNS]
    source = source_of(",".join(names) + f"\n{CANARY_PATH},{CANARY_LABEL},{CANARY_SUBJECT},public,train\n", tmp_path)
    assert f"column {column} is missing" in refused(ManifestError, source.table)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        f"{HEADER}\n{CANARY_PATH},1,{CANARY_SUBJECT},public,train\na,b,c,public,train,too,many\n".encode(),
        f'{HEADER}\n{CANARY_PATH},"1,{CANARY_SUBJECT},public,train\n'.encode(),
        f"{HEADER}\n{CANARY_PATH},1,{CANARY_SUBJECT}J\u00f6,public,train\n".encode("latin-1"),
        f"{HEADER}\n{CANARY_PATH},1,{CANARY_SUBJECT},public,train\n".encode("utf-16"),
    ],
    ids=["empty", "ragged", "open quote", "latin-1", "utf-16"],
)
def test_csv_that_cannot_be_read_is_refused(tmp_path: Path, text: bytes) -> None:
    source = source_of(text, tmp_path)
    refused(ManifestError, source.table)


def test_parquet_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    path.write_bytes(b"PAR1" + CANARY_SUBJECT.encode())
    refused(ManifestError, ManifestSource.open(path).table)


def test_folder_with_both_manifests_is_refused(tmp_path: Path) -> None:
    write_source(tmp_path, standard_rows(), "csv")
    write_source(tmp_path, standard_rows(), "parquet")
    assert "keep one of them" in refused(ManifestError, lambda: ManifestSource.open(tmp_path))


def test_missing_manifest_is_refused(tmp_path: Path) -> None:
    refused(ManifestError, lambda: ManifestSource.open(tmp_path))
    refused(ManifestError, lambda: ManifestSource.open(tmp_path / "manifest.csv"))
    refused(ManifestError, lambda: ManifestSource.open(tmp_path / "CANARY-folder" / "manifest.csv"))


def test_manifest_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.xlsx"
    path.write_bytes(b"x")
    assert ".csv or .parquet" in refused(ManifestError, lambda: ManifestSource.open(path))


@pytest.mark.parametrize(
    "path",
    ["../CANARY.png", "a/../../CANARY.png", "/etc/CANARY", ".", "", "a\0CANARY", "./../CANARY.png", "a/.."],
)
def test_path_that_leaves_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "CANARY.png").write_bytes(png())
    source = ManifestSource.open(write_source(tmp_path / "source", standard_rows()))
    assert "leaves the manifest's folder" in refused(ImageError, lambda: source.image(path))


def test_file_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    folder = write_source(tmp_path / "source", standard_rows())
    (folder / CANARY_PATH).symlink_to(tmp_path / "secret.png")
    assert "link" in refused(ImageError, lambda: ManifestSource.open(folder).image(CANARY_PATH))


def test_directory_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / CANARY_PATH).write_bytes(png())
    folder = write_source(tmp_path / "source", standard_rows())
    (folder / "link").symlink_to(outside, target_is_directory=True)
    assert "link" in refused(ImageError, lambda: ManifestSource.open(folder).image(f"link/{CANARY_PATH}"))


def test_link_inside_the_folder_and_a_linked_source_folder_are_followed(tmp_path: Path) -> None:
    folder = write_source(tmp_path / "source", standard_rows())
    (folder / "link.png").symlink_to("image-0.png")
    (tmp_path / "alias").symlink_to(folder, target_is_directory=True)
    assert ManifestSource.open(tmp_path / "alias").image("link.png") == png(1)


def test_missing_image_and_a_folder_in_its_place_are_refused(tmp_path: Path) -> None:
    folder = write_source(tmp_path, standard_rows())
    (folder / "CANARY-folder").mkdir()
    source = ManifestSource.open(folder)
    assert "missing" in refused(ImageError, lambda: source.image(CANARY_PATH))
    refused(ImageError, lambda: source.image("CANARY-folder"))
    refused(ImageError, lambda: source.image("manifest.csv/CANARY"))
    refused(ImageError, lambda: source.image("CANARY" * 1000))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_drop_deletes_the_rows_and_their_files_and_nothing_else(tmp_path: Path, kind: str) -> None:
    folder = write_source(tmp_path, standard_rows(), kind)
    source = ManifestSource.open(folder)
    table = source.table()
    before = contents(folder)
    erased = table[table["subject"] == "ada"]
    assert source.drop(ada) == 3
    after = contents(folder)
    assert set(before) - set(after) == {"image-2.png", "image-3.png", "image-4.png"}
    kept = table[table["subject"] != "ada"].drop(columns="line").to_numpy().tolist()
    assert rows_of(ManifestSource.open(folder)) == kept
    assert not any(path.encode() in after[f"manifest.{kind}"] for path in erased["path"])


def test_drop_keeps_a_file_that_another_row_still_names(tmp_path: Path) -> None:
    rows = [*standard_rows(), Row("dan", "one", path="image-2.png")]
    source = ManifestSource.open(write_source(tmp_path, rows))
    source.drop(ada)
    assert (tmp_path / "image-2.png").read_bytes() == png(3)
    assert not (tmp_path / "image-3.png").exists()


def test_drop_keeps_other_columns(tmp_path: Path) -> None:
    source = source_of(f'{HEADER},note\na.png,1,anna,public,train,x\nb.png,1,ben,public,train,"y, z"\n', tmp_path)
    source.drop(lambda subject: subject == "anna")
    assert source.manifest.read_text() == f'{HEADER},note\nb.png,1,ben,public,train,"y, z"\n'


def test_drop_of_a_file_that_is_gone_already_is_no_problem(tmp_path: Path) -> None:
    source = ManifestSource.open(write_source(tmp_path, standard_rows()))
    (tmp_path / "image-2.png").unlink()
    assert source.drop(ada) == 3


def test_drop_that_could_not_delete_says_how_many_and_names_none(tmp_path: Path) -> None:
    source = ManifestSource.open(write_source(tmp_path, standard_rows()))
    (tmp_path / "image-2.png").unlink()
    (tmp_path / "image-2.png").mkdir()  # unlink of a folder fails
    assert "1 image files could not be deleted" in refused(StepFailedError, lambda: source.drop(ada))
    assert len(source.table()) == 7  # the rows stay, so that a later try finds the files again


def test_relative_source_path_starts_at_the_projects_folder(tmp_path: Path) -> None:
    write_source(tmp_path / "mine", standard_rows())
    params = make_params({"source": {"kind": "manifest", "path": "mine", "erase": True}})
    assert open_source(params.source, tmp_path).table()["subject"].nunique() == 5


def test_digits_cannot_be_deleted_at_scikit_learn() -> None:
    params = make_params({"source.erase": True})
    assert "source.erase" in refused(ParamsError, lambda: open_source(params.source, ROOT))
    assert not isinstance(open_source(make_params().source, ROOT), ErasableSource)
    refused(ParamsError, lambda: open_erasable_source(make_params().source, ROOT))


def test_table_of_digits_is_the_one_that_the_code_prints() -> None:
    from sklearn.datasets import load_digits

    made = assign_subjects(load_digits().target.tolist())
    assert (ROOT / "data" / "digits.csv").read_text() == made.to_csv(index=False)


def test_people_of_the_digits_have_one_to_nine_records_and_some_are_in_train_and_test() -> None:
    made = assign_subjects([index % 10 for index in range(1797)])
    sizes = made.groupby("subject").size()
    assert (sizes.min(), sizes.max()) == (1, 9)
    assert made["path"].is_unique
    splits = made.groupby("subject")["split"].nunique()
    assert (splits == 2).any()
    assert (made.groupby("subject")["visibility"].nunique() == 1).all()


@pytest.mark.parametrize("path", ["digits:1797", "digits:-1", "digits:CANARY", "CANARY.png", "digits:", "0000"])
def test_path_that_names_no_digit_is_refused(path: str) -> None:
    source = open_source(make_params().source, ROOT)
    refused(ImageError, lambda: source.image(path))


def test_digits_are_whole_images_of_constant_bytes() -> None:
    from lmeraser.data.images import decode

    source = open_source(make_params().source, ROOT)
    data = source.image("digits:0000")
    assert data == source.image("digits:0000") != source.image("digits:0001")
    assert decode(data, image_params(8, 1)).max() > 200


def test_drop_keeps_a_file_that_another_row_names_by_another_spelling(tmp_path: Path) -> None:
    rows = [*standard_rows(), Row("dan", "one", path="./image-2.png")]  # the table's check allows it: the paths differ
    source = ManifestSource.open(write_source(tmp_path, rows))
    source.drop(ada)
    assert (tmp_path / "image-2.png").exists()


def test_drop_deletes_a_link_and_keeps_what_another_row_names(tmp_path: Path) -> None:
    folder = write_source(tmp_path, standard_rows())
    (folder / "link.png").symlink_to("image-5.png")
    write_manifest(folder, [("link.png", "one", "ada", "private", "train"), ("image-5.png", "one", "ben", "private", "train")])
    ManifestSource.open(folder).drop(ada)
    assert (folder / "image-5.png").exists()
    assert not (folder / "link.png").is_symlink()


def test_link_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    folder = write_source(tmp_path, standard_rows())
    (folder / "loop").symlink_to("loop")
    refused(ImageError, lambda: ManifestSource.open(folder).image("loop"))


@pytest.mark.parametrize("labels", [pd.array([1, None], dtype="Int64"), pd.Categorical(["1", None])], ids=["Int64", "category"])
def test_missing_value_in_a_typed_parquet_column_is_refused_or_read_as_empty(tmp_path: Path, labels: object) -> None:
    frame = pd.DataFrame({"path": ["a", "b"], "label": labels, "subject": ["x", "y"], "visibility": "public", "split": "train"})
    frame.to_parquet(tmp_path / "manifest.parquet")
    assert ManifestSource.open(tmp_path).table()["label"].tolist() == ["1", ""]


def test_line_of_a_row_is_where_it_stands_in_the_file(tmp_path: Path) -> None:
    source = source_of(f"{HEADER}\n\n\na.png,1,anna,public,train\n", tmp_path)
    assert source.table()["line"].tolist() == [4]


def test_rows_with_one_field_more_than_the_header_are_refused(tmp_path: Path) -> None:
    source = source_of(f"{HEADER}\na.png,1,anna,public,train,\n", tmp_path)
    refused(ManifestError, source.table)
