"""Parquet parts: bytes are a function of the records; an image that is not the promised one is refused."""

import random
from pathlib import Path

import pyarrow as pa
import pytest
from builders import CANARY_LABEL, CANARY_SUBJECT, make_record, refused
from hypothesis import given, settings
from hypothesis import strategies as st

from lmeraser.core.digest import sha256
from lmeraser.core.errors import DigestMismatchError, ProjectError
from lmeraser.data.records import FACTS, SCHEMA, Record, read_images, read_records, read_table, write_records, write_table

IMAGES = [b"image %d" % index for index in range(6)]


def pairs() -> list[tuple[Record, bytes]]:
    splits = ("train", "test", "train", "train", "test", "train")
    return [
        (make_record(CANARY_SUBJECT, CANARY_LABEL, split=split, image=image), image)
        for split, image in zip(splits, IMAGES, strict=True)
    ]


def tamper(path: Path, change: dict[str, object]) -> None:
    """Rewrite one column of a part as somebody else would: digests and ids stay as they were."""
    table = read_table(path)
    for name, value in change.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array([value] * len(table), type=SCHEMA.field(name).type))
    write_table(path, table)


def test_records_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "p00.parquet"
    write_records(path, pairs())
    assert read_records(path) == sorted(record for record, _ in pairs())
    assert read_images(path, {record.id: record.sha256 for record, _ in pairs()}) == {r.id: image for r, image in pairs()}


def test_one_split_can_be_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "p00.parquet"
    write_records(path, pairs())
    assert len(read_records(path, "train")) == 4
    assert {record.split for record in read_records(path, "test")} == {"test"}


@settings(max_examples=20)
@given(st.randoms(use_true_random=False))
def test_bytes_of_a_part_do_not_depend_on_the_order_of_records(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    write_records(folder / "one", pairs())
    shuffled = pairs()
    rng.shuffle(shuffled)
    write_records(folder / "other", shuffled)
    assert (folder / "one").read_bytes() == (folder / "other").read_bytes()


def test_image_lies_uncompressed_in_a_part(tmp_path: Path) -> None:
    # A byte scan must be able to find what is left behind.
    write_records(tmp_path / "part", pairs())
    assert all(image in (tmp_path / "part").read_bytes() for image in IMAGES)


def test_empty_part_is_a_part(tmp_path: Path) -> None:
    write_records(tmp_path / "part", [])
    assert read_records(tmp_path / "part") == []
    assert read_images(tmp_path / "part", {}) == {}


def test_only_wanted_images_are_read(tmp_path: Path) -> None:
    write_records(tmp_path / "part", pairs())
    record, image = pairs()[3]
    assert read_images(tmp_path / "part", {record.id: record.sha256}) == {record.id: image}


def test_tampered_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p00.parquet"
    write_records(path, pairs()[:1])
    tamper(path, {"image": b"CANARY-other-image"})
    record = pairs()[0][0]
    message = refused(DigestMismatchError, lambda: read_images(path, {record.id: record.sha256}))
    assert record.sha256[:12] in message
    assert sha256(b"CANARY-other-image")[:12] in message


def test_tampered_digest_does_not_make_a_tampered_image_pass(tmp_path: Path) -> None:
    path = tmp_path / "p00.parquet"
    write_records(path, pairs()[:1])
    tamper(path, {"image": b"CANARY", "sha256": sha256(b"CANARY")})
    record = pairs()[0][0]  # the promise comes from the cluster's file, not from the part
    refused(DigestMismatchError, lambda: read_images(path, {record.id: record.sha256}))


def test_missing_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p00.parquet"
    write_records(path, pairs()[1:])
    record = pairs()[0][0]
    assert record.id[:12] in refused(DigestMismatchError, lambda: read_images(path, {record.id: record.sha256}))


def test_missing_part_is_refused(tmp_path: Path) -> None:
    assert "p00.parquet is missing" in refused(ProjectError, lambda: read_records(tmp_path / "p00.parquet"))


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_truncated_part_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "p00.parquet"
    write_records(path, pairs())
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(ProjectError, lambda: read_records(path))


def test_file_that_is_no_part_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "other.parquet", pa.table({"CANARY": [1]}))
    refused(ProjectError, lambda: read_table(tmp_path / "other.parquet", FACTS))


def test_part_with_one_flipped_byte_is_refused_or_read(tmp_path: Path) -> None:
    path = tmp_path / "p00.parquet"
    write_records(path, pairs())
    whole = path.read_bytes()
    leaks = set()
    for place in range(0, len(whole), 23):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            read_records(path)
        except ProjectError:
            continue
        except Exception as error:
            leaks.add(type(error).__name__)
    assert leaks == set()
