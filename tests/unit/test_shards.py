"""Shards of a part: read as one file, each person's records in one of them, none missing or strange without a word."""

import itertools
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from builders import CANARY_LABEL, CANARY_SUBJECT, make_params, make_record, refused, standard_rows, write_source

from flows.run.build import drop_drafts
from lmeraser.core.digest import part_of, shard_of
from lmeraser.core.errors import DigestMismatchError, ProjectError
from lmeraser.core.files import DRAFT
from lmeraser.core.layout import Layout
from lmeraser.data.records import FACTS, Part, Record, images_of, read_images, read_records, read_table, shard_file, write_records
from lmeraser.pipeline.links import link_artifacts
from lmeraser.pipeline.locks import read_files
from lmeraser.sources.splitting import read_home
from lmeraser.stores.dvc_objects import inner_folders
from stages.split import split


def pairs() -> list[tuple[Record, bytes]]:
    """Three records each of twelve people."""
    images = {(person, number): b"image %d %d" % (person, number) for person in range(12) for number in range(3)}
    return [
        (make_record(f"{CANARY_SUBJECT}-{person}", CANARY_LABEL, split="test" if number == 2 else "train", image=image), image)
        for (person, number), image in images.items()
    ]


def write_part(path: Path, shards: int) -> Path:
    """All of them as one part."""
    if shards == 1:
        write_records(path, pairs())
        return path
    path.mkdir()
    for number in range(shards):
        inside = [pair for pair in pairs() if shard_of(pair[0].subject, shards) == number]
        write_records(shard_file(path, number), inside, number, shards)
    return path


def promised() -> dict[str, str]:
    return {record.id: record.sha256 for record, _ in pairs()}


@pytest.mark.parametrize("shards", [2, 5, 40])
def test_part_reads_the_same_however_many_shards_it_has(shards: int, tmp_path: Path) -> None:
    file, folder = write_part(tmp_path / "one.parquet", 1), write_part(tmp_path / "p00.parquet", shards)
    assert len(list(folder.iterdir())) == shards
    for columns in (None, FACTS, ("subject",), ("split", "id"), ("label", "sha256")):
        assert read_table(folder, columns).equals(read_table(file, columns)), columns
    ids, people = list(promised())[4:9], {f"{CANARY_SUBJECT}-3", f"{CANARY_SUBJECT}-7", "nobody"}
    asked: tuple[dict[str, Any], ...] = ({}, {"split": "test"}, {"only": ids}, {"people": people}, {"people": set()})
    for named in asked:
        assert read_records(folder, **named) == read_records(file, **named), named
    records = [record for record, _ in pairs()]
    assert images_of(folder, records) == images_of(file, records) == [image for _, image in pairs()]
    assert read_images(folder, promised()) == read_images(file, promised())


def without(number: int) -> Callable[[Path], object]:
    def fault(folder: Path) -> None:
        shard_file(folder, number).unlink()

    return fault


def emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def swapped(folder: Path) -> None:
    first, second = shard_file(folder, 0), shard_file(folder, 1)
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)


def of_another_number(folder: Path) -> None:
    other = write_part(folder.parent / "other.parquet", 3)
    shutil.copy(shard_file(other, 0), shard_file(folder, 0))


def plain(folder: Path) -> None:
    """Rows of a part, but no shard."""
    write_records(shard_file(folder, 2), pairs()[:1])


FAULTS: dict[str, Callable[[Path], object]] = {
    "the first is missing": without(0),
    "one is missing": without(2),
    "the last is missing": without(3),
    "one too many": lambda folder: write_records(shard_file(folder, 4), [], 4, 5),
    "a file that is none": lambda folder: (folder / "CANARY.parquet").write_bytes(b""),
    "a draft": lambda folder: (folder / f"{DRAFT}0000.parquet").write_bytes(b""),
    "another spelling": lambda folder: shard_file(folder, 3).rename(folder / "3.parquet"),
    "none at all": emptied,
    "two have changed places": swapped,
    "one is of another number of shards": of_another_number,
    "one has no number": plain,
    "one is cut short": lambda folder: shard_file(folder, 1).write_bytes(shard_file(folder, 1).read_bytes()[:-9]),
}
READERS: dict[str, Callable[[Path], object]] = {
    "a table": lambda folder: read_table(folder, ("label",)),
    "records": read_records,
    "images by id": lambda folder: read_images(folder, promised() | {"0" * 32: "1" * 64}),
    "images of people": lambda folder: images_of(folder, [record for record, _ in pairs()]),
}


@pytest.mark.parametrize("read", READERS.values(), ids=list(READERS))
@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_part_whose_shards_are_not_all_there_or_others_is_refused(
    fault: Callable[[Path], object], read: Callable[[Path], object], tmp_path: Path
) -> None:
    folder = write_part(tmp_path / "p00.parquet", 4)
    fault(folder)
    message = refused(ProjectError, lambda: read(folder))
    assert "p00.parquet" in message
    assert "dvc checkout" in message


def test_image_that_is_in_no_shard_is_refused(tmp_path: Path) -> None:
    folder = write_part(tmp_path / "p00.parquet", 4)
    assert "is missing" in refused(DigestMismatchError, lambda: read_images(folder, promised() | {"0" * 32: "1" * 64}))
    stranger = make_record(CANARY_SUBJECT, image=b"another")
    assert "is missing" in refused(DigestMismatchError, lambda: images_of(folder, [stranger]))


def opened_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    real = pq.ParquetFile

    def noting(path: Path, **options: object) -> pq.ParquetFile:
        names.append(path.name)
        return real(path, **options)

    monkeypatch.setattr(pq, "ParquetFile", noting)
    return names


def test_one_persons_images_and_records_are_read_from_their_shard_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_part(tmp_path / "p00.parquet", 5)
    person = f"{CANARY_SUBJECT}-4"
    own = [record for record, _ in pairs() if record.subject == person]
    names = opened_files(monkeypatch)
    images_of(folder, own)
    assert read_records(folder, people={person}) == sorted(own)
    assert set(names) == {f"{shard_of(person, 5):04d}.parquet"}


def test_people_of_one_part_are_spread_over_its_shards() -> None:
    people = [f"person-{number}" for number in range(4000)]
    inside = [person for person in people if part_of(person, 4) == 0]
    counts = Counter(shard_of(person, 4) for person in inside)
    assert sorted(counts) == [0, 1, 2, 3]
    assert max(counts.values()) < 1.3 * len(inside) / 4


def made(root: Path, shards: int) -> Layout:
    layout = Layout(root)
    layout.erased.parent.mkdir(parents=True, exist_ok=True)
    layout.erased.write_text('{"key_id": null, "subjects": []}')
    if not (root / "people").exists():
        write_source(root / "people", standard_rows())
    changes = {"source": {"kind": "manifest", "path": str(root / "people"), "erase": False}, "parts": ["p00", "p01"]}
    split(layout, make_params(changes | {"shards": shards}), [])
    return layout


def names(layout: Layout) -> list[str]:
    return sorted(path.relative_to(layout.private).as_posix() for path in layout.private.rglob("*") if path.is_file())


def expected(shards: int) -> list[str]:
    inner = [""] if shards == 1 else [f"/{number:04d}.parquet" for number in range(shards)]
    return [f"{part}.parquet{name}" for part in ("p00", "p01") for name in inner]


def test_another_number_of_shards_leaves_none_of_the_old_and_the_same_records(tmp_path: Path) -> None:
    tables = []
    for shards in (1, 4, 7, 2, 1):
        layout = made(tmp_path, shards)
        assert names(layout) == expected(shards)
        assert layout.public.is_file(), "public records are never rewritten for a person"
        assert not list(layout.artifacts.rglob(f"{DRAFT}*"))
        assert "CANARY" not in " ".join(names(layout)), "a name is a number, never a person's"
        tables.append([read_table(layout.part(part)) for part in ("p00", "p01")])
    assert all(table == tables[0] for table in tables)


@pytest.mark.slow
def test_split_that_is_killed_leaves_of_each_part_the_old_the_new_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.rename
    for was, now, stop in itertools.product((1, 3), (1, 3), range(4)):
        if was == now == 1:  # files take the place of files, at once
            continue
        layout, left = made(tmp_path / f"{was}-{now}-{stop}", was), itertools.count(stop, -1)

        def rename(path: Path, target: Path, left: Iterator[int] = left) -> Path:
            if next(left) == 0:
                raise KeyboardInterrupt
            return real(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename)
            with pytest.raises(KeyboardInterrupt):
                made(layout.root, now)
        there = [path for path in map(layout.part, ("p00", "p01")) if path.exists()]
        assert {Part.of(path).count for path in there} <= {was, now}
        assert sum(len(read_table(path)) for path in there) > 0 or not there
        assert len(there) == 2 - stop % 2, "one at a time"
        made(layout.root, now)  # the next run clears what is left
        assert names(layout) == expected(now)


def test_folder_that_has_not_taken_its_place_is_linked_by_nobody_and_dropped_before_a_run(tmp_path: Path) -> None:
    layout, copy = made(tmp_path / "project", 2), Layout(tmp_path / "copy")
    layout.params.write_text("")
    there = names(layout)
    for name in (f"{DRAFT}p00.parquet", f"{DRAFT}old-p01.parquet"):
        shutil.copytree(layout.part("p00"), layout.private / name)
    link_artifacts(layout, copy)
    assert names(copy) == there
    drop_drafts(layout)
    assert names(layout) == there
    assert [path.name for path in layout.private.iterdir() if path.name.startswith(DRAFT)] == []


def test_one_shards_images_are_in_memory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def noting(*arguments: Any, **options: Any) -> list[tuple[Record, bytes]]:
        records = read_home(*arguments, **options)
        sizes.append(len(records))
        return records

    monkeypatch.setattr("stages.split.read_home", noting)
    layout = made(tmp_path, 8)
    shards = [read_table(shard_file(layout.part(part), number)).num_rows for part in ("p00", "p01") for number in range(8)]
    assert sizes[1:] == shards


def test_digest_of_a_part_within_the_folder_of_parts_is_told_from_its_manifest(tmp_path: Path) -> None:
    """As a lock names what `embed` depends on."""
    layout = made(tmp_path, 3)
    members = {name: read_files(layout.private, [name])[name] for name in names(layout)}
    inner = inner_folders({"any.dir": members})
    for part in ("p00", "p01"):
        digest = read_files(layout.private, [f"{part}.parquet"])[f"{part}.parquet"]
        assert inner[digest] == {f"{number:04d}.parquet": members[f"{part}.parquet/{number:04d}.parquet"] for number in range(3)}
    assert len(inner) == 2


def test_shards_are_their_owners_alone(tmp_path: Path) -> None:
    from lmeraser.core.private import close_private

    layout = made(tmp_path, 2)
    for file in Part.of(layout.part("p00")).files:
        assert file.stat().st_mode & 0o777 == 0o600
        file.chmod(0o644)  # as DVC leaves a copy
    close_private(layout)
    assert {file.stat().st_mode & 0o777 for file in Part.of(layout.part("p00")).files} == {0o600}
