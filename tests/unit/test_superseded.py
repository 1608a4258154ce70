"""A file that a corrected record came into, as it was, is of no state that is left: nothing keeps what nothing names any more."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from builders import Row
from fake_pipeline import CANARY, FakePipeline, everybody, fakes
from histories import id_of
from mixes import ask, left

from flows.purge import step as purging
from lmeraser.data.records import read_records
from lmeraser.erase.states import CERTIFIED

ROWS = tuple(row.named(index) for index, row in enumerate(everybody()))
MOVED = next(row for row in ROWS if row.seed == 20)


@contextmanager
def built(folder: Path, **changes: Any) -> Iterator[FakePipeline]:
    with fakes(folder):
        yield FakePipeline.build(folder / "built", ROWS, **changes)


def part_of(pipeline: FakePipeline, row: Row) -> str:
    parts = sorted(pipeline.layout.private.glob("*.parquet"))
    (part,) = (part for part in parts if id_of(row) in {record.id for record in read_records(part)})
    return part.name


def person_in(pipeline: FakePipeline, part: str) -> str:
    """Somebody else, with training records in a part."""
    people = [row.subject for row in ROWS if row.visibility == "private" and row.split == "train"]
    return next(row.subject for row in ROWS if row.subject in people and part_of(pipeline, row) == part and row.seed > 21)


def carried_out(pipeline: FakePipeline, kind: str, seed: int, person: str) -> None:
    assert ask(pipeline, kind, seed, person, ROWS)
    pipeline.sweep()
    assert {request.state for request in pipeline.requests()} == {CERTIFIED}
    assert purging.unknown_in_remotes(pipeline.layout) == {}, "the next purge would be refused"


@pytest.mark.parametrize("changes", [{}, {"shards": 3}], ids=["parts", "shards"])
def test_what_was_made_of_a_file_that_a_record_came_into_goes_with_the_run_entry_that_named_it(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    with built(tmp_path, **changes) as pipeline:
        other = next(part.name for part in pipeline.layout.private.glob("*.parquet") if part.name != part_of(pipeline, MOVED))
        carried_out(pipeline, "subject", MOVED.seed, person_in(pipeline, other))
        carried_out(pipeline, "person", 0, f"{CANARY}-1")
        assert left(pipeline, [MOVED, *(row for row in ROWS if row.subject == f"{CANARY}-1")]) == []


def test_what_was_made_of_a_part_that_lost_a_test_record_goes_once_a_record_came_into_it(tmp_path: Path) -> None:
    """What `embed` makes is the same without it, so it stays; its run entry went, and only the lock named it then."""
    with built(tmp_path) as pipeline:
        (asked,) = (row for row in ROWS if row.subject == f"{CANARY}-test")
        part = part_of(pipeline, asked)
        target = person_in(pipeline, part)
        moved = next(row for row in ROWS if row.subject.startswith(CANARY) and part_of(pipeline, row) != part and row.seed > 9)
        carried_out(pipeline, "person", 0, asked.subject)
        carried_out(pipeline, "subject", moved.seed, target)
        carried_out(pipeline, "person", 0, f"{CANARY}-0")
        assert left(pipeline, [moved, asked]) == []
