"""A corrected record is the one that a project with the right value has from the first day, and its old value is nowhere."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from builders import Row, contents, png
from fake_pipeline import CANARY, FakePipeline, everybody, fakes
from histories import id_of

from lmeraser.core.digest import sha256
from lmeraser.erase.states import CERTIFIED
from lmeraser.pipeline.locks import read_outs

SHARED = 10  # seed of an image that two people have
ROWS = tuple(row.named(index) for index, row in enumerate((*everybody(), Row(f"{CANARY}-4", "one", seed=SHARED))))
PRIVATE = [row for row in ROWS if row.visibility == "private"]


def digest_of(seed: int) -> str:
    return sha256(png(seed))


def row_of(seed: int) -> Row:
    return next(row for row in PRIVATE if row.seed == seed)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePipeline]:
    folder = tmp_path_factory.mktemp("corrections")
    with fakes(folder):
        yield FakePipeline.build(folder / "template", ROWS)


@pytest.fixture
def pipeline(template: FakePipeline, tmp_path: Path) -> FakePipeline:
    return template.copy(tmp_path / "copy")


@functools.cache
def outs_of(template: FakePipeline, rows: tuple[Row, ...]) -> dict[str, str]:
    """Of a project that had these rows from the first day."""
    folder = template.root.parents[1] / sha256(repr(rows).encode())[:12]
    return dict(read_outs(FakePipeline.build(folder, rows).layout.lock))


def with_value(rows: Sequence[Row], old: Row, label: str | None = None, subject: str | None = None) -> tuple[Row, ...]:
    new = replace(old, label=label or old.label, subject=subject or old.subject)
    return tuple(new if row == old else row for row in rows)


def left(pipeline: FakePipeline, gone: Sequence[Row]) -> list[str]:
    """Files outside the source that hold an id of a record as it was."""
    ids = [id_of(row).encode() for row in gone]
    files = contents(pipeline.root.parent).items()
    return [name for name, held in files if not name.startswith("project/people/") and any(term in held for term in ids)]


def test_corrected_label_gives_the_project_that_had_it_from_the_first_day(template: FakePipeline, pipeline: FakePipeline) -> None:
    row = row_of(20)
    assert left(pipeline, [row]), "the test looks for what is there"
    told = pipeline.json("correct", "--sha256", digest_of(20), "--label", "two")
    assert (told["type"], told["state"], told["records_removed"]) == ("rectified", CERTIFIED, 1)
    assert read_outs(pipeline.layout.lock) == outs_of(template, with_value(ROWS, row, label="two"))
    assert left(pipeline, [row]) == []


def test_corrected_subject_gives_the_project_that_had_it_from_the_first_day(
    template: FakePipeline, pipeline: FakePipeline
) -> None:
    row = row_of(20)
    pipeline.json("correct", "--path", row.path, "--subject", f"{CANARY}-5")
    assert read_outs(pipeline.layout.lock) == outs_of(template, with_value(ROWS, row, subject=f"{CANARY}-5"))
    assert left(pipeline, [row]) == []
