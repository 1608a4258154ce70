"""Split: a record is its content; rows, order and paths do not matter; erased people are left out unopened."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from builders import (
    CANARY_LABEL,
    CANARY_PATH,
    CANARY_SUBJECT,
    MAX_PIXELS,
    Row,
    encoded,
    png,
    refused,
    standard_rows,
    write_manifest,
    write_source,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lmeraser.core.digest import part_of
from lmeraser.core.errors import ImageError, ManifestError
from lmeraser.data.records import Record
from lmeraser.sources.manifest import ManifestSource
from lmeraser.sources.splitting import Split, divide, read_home, split_source

PARTS = 3
CANARY = Row(CANARY_SUBJECT, CANARY_LABEL, path=CANARY_PATH, seed=99)


def nobody(_: str) -> bool:
    return False


def split_folder(folder: Path, is_erased: Callable[[str], bool] = nobody) -> Split:
    return split_source(ManifestSource.open(folder), is_erased, PARTS, MAX_PIXELS)


def split_rows(folder: Path, rows: list[Row], is_erased: Callable[[str], bool] = nobody) -> Split:
    return split_folder(write_source(folder, rows), is_erased)


def records(split: Split) -> list[Record]:
    return sorted(record for part in (split.public, *split.private) for record, _ in part)


def facts(split: Split) -> tuple[list[tuple[Record, bytes]], ...]:
    """A split as sets of records and images: files are sorted by id when they are written."""
    return tuple(sorted(part) for part in (split.public, *split.private))


def refusal(folder: Path, rows: list[Row], kind: type[ManifestError] | type[ImageError] = ManifestError) -> str:
    return refused(kind, lambda: split_rows(folder, rows))


def test_each_private_subject_is_whole_in_its_own_part(tmp_path: Path) -> None:
    split = split_rows(tmp_path, standard_rows())
    assert {record.subject for record, _ in split.public} == {"pub-1", "pub-2"}
    for part, inside in enumerate(split.private):
        assert all(part_of(record.subject, PARTS) == part for record, _ in inside)
    assert len(records(split)) == 7
    assert split.repeated == 0


def test_images_are_kept_byte_for_byte(tmp_path: Path) -> None:
    split = split_rows(tmp_path, standard_rows())
    images = {image for part in (split.public, *split.private) for _, image in part}
    assert images == {png(row.seed) for row in standard_rows()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[Record, bytes]], ...]:
    """The facts of the standard rows as they are."""
    return facts(split_rows(tmp_path_factory.mktemp("plain"), standard_rows()))


@settings(max_examples=6)
@given(st.randoms(use_true_random=False))
def test_order_of_rows_and_names_of_files_do_not_matter(
    plain: tuple[list[tuple[Record, bytes]], ...], tmp_path_factory: pytest.TempPathFactory, rng: random.Random
) -> None:
    rows = standard_rows()
    rng.shuffle(rows)
    renamed = [replace(row, path=f"{rng.randrange(10**9)}/{index}.png") for index, row in enumerate(rows)]
    assert facts(split_rows(tmp_path_factory.mktemp("shuffled"), renamed)) == plain


def test_source_without_a_person_gives_what_erasing_the_person_gives(tmp_path: Path) -> None:
    erased = split_rows(tmp_path / "all", standard_rows(), lambda subject: subject == "ada")
    never = split_rows(tmp_path / "without", [row for row in standard_rows() if row.subject != "ada"])
    assert facts(erased) == facts(never)


def test_image_of_an_erased_person_is_never_opened(tmp_path: Path) -> None:
    folder = write_source(tmp_path, [*standard_rows(), CANARY])
    (folder / CANARY_PATH).write_bytes(b"broken")
    assert len(records(split_folder(folder, lambda subject: subject == CANARY_SUBJECT))) == 7
    (folder / CANARY_PATH).unlink()
    assert len(records(split_folder(folder, lambda subject: subject == CANARY_SUBJECT))) == 7
    refused(ImageError, lambda: split_folder(folder))


def test_same_image_of_two_people_is_two_records(tmp_path: Path) -> None:
    split = split_rows(tmp_path, [*standard_rows(), Row("dan", "one", seed=3)])
    same = [record for record in records(split) if record.sha256 == records_of(split, "dan")[0].sha256]
    assert {record.subject for record in same} == {"ada", "dan"}
    assert len({record.id for record in same}) == 2


def records_of(split: Split, subject: str) -> list[Record]:
    return [record for record in records(split) if record.subject == subject]


def test_row_that_repeats_another_is_one_record(tmp_path: Path) -> None:
    rows = [*standard_rows(), Row("ada", "one", seed=3, path="copy.png")]
    split = split_rows(tmp_path, rows)
    assert split.repeated == 1
    assert facts(split) == facts(split_rows(tmp_path / "plain", standard_rows()))


@pytest.mark.parametrize("change", [{"label": "two"}, {"split": "test"}, {"visibility": "public"}, {"subject": "eve"}])
def test_id_of_a_record_tells_subject_label_visibility_and_split_apart(tmp_path: Path, change: dict[str, Any]) -> None:
    again = replace(Row("ada", "one", seed=3, path="again.png"), **change)
    split = split_rows(tmp_path, [*standard_rows(), again])
    assert len({record.id for record in records(split)}) == 8


def test_person_in_train_and_test_stays_in_one_part(tmp_path: Path) -> None:
    split = split_rows(tmp_path, standard_rows())
    assert sorted(record.split for record in records_of(split, "ada")) == ["test", "train", "train"]


def test_class_that_is_only_in_test_is_kept(tmp_path: Path) -> None:
    split = split_rows(tmp_path, [*standard_rows(), Row("dan", "three", split="test", seed=8)])
    assert [record.label for record in records_of(split, "dan")] == ["three"]


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [
        (replace(CANARY, label=""), "label", "1 to 1024"),
        (replace(CANARY, label="  "), "label", "1 to 1024"),
        (replace(CANARY, subject=""), "subject", "1 to 1024"),
        (replace(CANARY, subject=CANARY_SUBJECT * 100), "subject", "1 to 1024"),
        (replace(CANARY, visibility="CANARY-secret"), "visibility", "public or private"),
        (replace(CANARY, visibility="Public"), "visibility", "public or private"),
        (replace(CANARY, split="CANARY-val"), "split", "train or test"),
        (replace(CANARY, path="image-0.png"), "path", "each path once"),
    ],
    ids=["no label", "blank label", "no subject", "long subject", "visibility", "capital letter", "split", "path twice"],
)
def test_broken_row_is_refused_with_column_count_and_line(tmp_path: Path, row: Row, column: str, expected: str) -> None:
    message = refusal(tmp_path, [*standard_rows(), row])
    assert f"column {column}: " in message
    assert " of 8 rows" in message
    assert "line 9" in message
    assert expected in message


def test_path_that_is_empty_is_refused(tmp_path: Path) -> None:
    write_source(tmp_path, standard_rows())
    write_manifest(tmp_path, [("", CANARY_LABEL, CANARY_SUBJECT, "public", "train")])
    assert "column path: 1 of 1 rows" in refused(ManifestError, lambda: split_folder(tmp_path))


def test_manifest_without_rows_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, [])
    assert "at least one record" in refused(ManifestError, lambda: split_folder(tmp_path))


@pytest.mark.parametrize("visibility", ["public", "private"])
def test_source_without_public_or_private_training_records_is_refused(tmp_path: Path, visibility: str) -> None:
    rows = [replace(row, split="test") if row.visibility == visibility else row for row in standard_rows()]
    assert f"no {visibility} training records" in refusal(tmp_path, rows)


@pytest.mark.parametrize("visibility", ["public", "private"])
def test_one_class_is_refused(tmp_path: Path, visibility: str) -> None:
    rows = [replace(row, label=CANARY_LABEL) if row.visibility == visibility else row for row in standard_rows()]
    assert f"the {visibility} training records have one class" in refusal(tmp_path, rows)


def test_shares_are_judged_without_the_erased(tmp_path: Path) -> None:
    folder = write_source(tmp_path, standard_rows())
    assert "no private training records" in refused(
        ManifestError, lambda: split_folder(folder, lambda subject: not subject.startswith("pub"))
    )


@pytest.mark.parametrize(
    "data",
    [b"", b"CANARY", png()[:40], encoded(Image.new("L", (9, 9)), "GIF"), encoded(Image.new("1", (1001, 1000)))],
    ids=["empty", "no image", "truncated", "gif", "too large"],
)
def test_broken_image_is_refused_with_its_line(tmp_path: Path, data: bytes) -> None:
    folder = write_source(tmp_path, [*standard_rows(), CANARY])
    (folder / CANARY_PATH).write_bytes(data)
    assert "manifest.csv line 9: " in refused(ImageError, lambda: split_folder(folder))


@pytest.mark.parametrize("path", ["../CANARY.png", "/CANARY.png", "CANARY-missing.png"])
def test_path_that_leads_nowhere_or_outside_is_refused_with_its_line(tmp_path: Path, path: str) -> None:
    folder = write_source(tmp_path, standard_rows())
    rows = [(f"image-{i}.png", r.label, r.subject, r.visibility, r.split) for i, r in enumerate(standard_rows())]
    write_manifest(folder, [*rows, (path, CANARY_LABEL, CANARY_SUBJECT, "private", "train")])
    assert "line 9: " in refused(ImageError, lambda: split_folder(folder))


@pytest.mark.parametrize("letter", ["\0", "\x1f", "\n", "\x7f", "\x9f"])
def test_subject_or_label_with_control_characters_is_refused(tmp_path: Path, letter: str) -> None:
    # A request could not name such a person, and \x1f divides the fields of an id.
    for column in ("subject", "label"):
        change: dict[str, Any] = {column: f"CANARY{letter}anna"}
        row = replace(CANARY, **change)
        folder = write_source(tmp_path / column, [*standard_rows(), row], "parquet")
        message = refused(ManifestError, partial(split_folder, folder))
        assert f"column {column}: 1 of 8 rows" in message
        assert "control or invisible characters" in message
        assert "row 8" in message


def test_every_retained_row_goes_to_one_file_and_only_that_files_images_are_opened(tmp_path: Path) -> None:
    source = ManifestSource.open(write_source(tmp_path, standard_rows()))
    homes, erased = divide(source, lambda subject: subject == "cem", PARTS)
    assert erased == 1
    lines = [line for rows in homes for line in rows["line"]]
    retained = source.table()
    assert sorted(lines) == sorted(retained.loc[retained["subject"] != "cem", "line"])
    for image in (tmp_path).glob("*.png"):
        if image.name not in set(homes[0]["path"]):
            image.unlink()
    assert {record.subject for record, _ in read_home(source, homes[0], MAX_PIXELS)} == {"pub-1", "pub-2"}
