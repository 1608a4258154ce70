"""A batch in the ledger keeps every value of today's JSON, and batches of older versions are still read."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from builders import ROOT, example_plan

from lmeraser.erase.batches import BatchRecord, Ground, StoreCounts
from lmeraser.prove.absence import Tree

VECTORS = sorted((ROOT / "tests" / "batches").glob("*.json"))
FULL = BatchRecord(
    plan=example_plan(slots_retrained=["c01"]),
    before={"artifacts/head": "1" * 32},
    plans={"r1": example_plan(records_removed=3)},
    holding=("artifacts/split/private/p00.parquet",),
    arriving=("4" * 64,),
    ground=Ground("l", "e"),
    unknown_accepted=True,
    moved=True,
    mixed=True,
    unplanned=True,
    replayed=example_plan(exact=False),
    served={"artifacts/head": "2" * 64},
    checks=(("a", "b"), ("c", "d")),
    absence=Tree(["1" * 64]).absence(["2" * 64, "3" * 64]).to_json(),
    source="erased: 0 rows and their files",
    source_rows=0,
    deleted={"cache": 0},
    stores=(StoreCounts("cache", 2, 0, 1),),
    scan=(("e", "f"),),
)


def stored(path: Any) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(path.read_bytes())
    return raw


def read_back(batch: BatchRecord) -> BatchRecord:
    """As the ledger keeps it, read again."""
    columns: dict[str, Any] = json.loads(json.dumps(batch.to_json()))
    return BatchRecord.from_json(**columns)


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_json_that_the_ledger_held_before_there_was_a_type_comes_back_as_it_was(path: Any) -> None:
    assert BatchRecord.from_json(**stored(path)).to_json() == stored(path)


def test_there_are_batches_of_before_to_read() -> None:
    assert len(VECTORS) == 2


def test_every_field_survives_the_ledger() -> None:
    unset = BatchRecord(example_plan(), {})
    same = [field.name for field in fields(FULL) if getattr(FULL, field.name) == getattr(unset, field.name)]
    assert same == ["batch_id", "opened_at"], "the example sets every other field"
    assert read_back(FULL) == FULL


@pytest.mark.parametrize("name", [field.name for field in fields(FULL)][3:-2])
def test_what_a_step_has_not_set_is_not_in_the_ledger(name: str) -> None:
    unset = BatchRecord(example_plan(), {})
    facts = replace(unset, **{name: getattr(FULL, name)}).to_json()["facts"]
    assert facts.keys() == {"plans", "unknown_accepted", name}


def test_rows_of_the_source_are_told_from_a_source_that_was_not_begun_to_be_cleared() -> None:
    begun = replace(BatchRecord(example_plan(), {}), source_rows=0)
    assert read_back(begun).source_rows == 0
    assert read_back(BatchRecord(example_plan(), {})).source_rows is None


def test_batch_of_an_older_version_is_read() -> None:
    raw: dict[str, Any] = dict(FULL.to_json())
    raw["facts"] = {"plans": {}, "scan": ["a new process found nothing left", "10 files"]}
    raw["facts"]["stores"] = [{"store": "cache", "deleted": 1, "residue": 0}]
    batch = BatchRecord.from_json(**raw)
    assert batch.scan == (("a new process found nothing left", "10 files"),)
    assert batch.stores == (StoreCounts("cache", 1, 0, 0),)
    assert (batch.ground, batch.unknown_accepted, batch.outcome) == (None, False, batch.plan)
