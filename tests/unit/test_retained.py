"""Nobody who should be gone is in any retained file, and each training record is in one cluster: looked at by columns."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest
from builders import example_plan, make_record, refused, tiny_params
from fake_pipeline import FakePipeline, dvc_of, everybody
from hypothesis import given
from hypothesis import strategies as st

from flows.project import Project
from flows.requests import verify
from flows.requests.work import Work
from lmeraser.clusters.files import LEAF_SCHEMA, MEMBER_SCHEMA
from lmeraser.core.errors import VerificationError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.data.records import write_records, write_table
from lmeraser.erase.batches import BatchRecord
from lmeraser.erase.erased import SubjectKey
from lmeraser.erase.ledger import Claim
from lmeraser.erase.retained import files_holding, require_partition, retained_ids

KEY = SubjectKey(b"k" * 32)
IDS = [f"{number:032x}" for number in range(40)]


class Counting(SubjectKey):
    """A key that tells for whom it was used."""

    asked: ClassVar[list[str]] = []

    def pseudonym(self, subject: str) -> str:
        self.asked.append(subject)
        return super().pseudonym(subject)


def write_ids(path: Path, ids: Sequence[str], schema: pa.Schema) -> None:
    """A table of which ids alone matter."""
    columns = {name: list(ids) if name == "id" else pa.nulls(len(ids), schema.field(name).type) for name in schema.names}
    write_table(path, pa.table(columns, schema=schema))


def build(
    folder: Path, people: dict[str, list[str]], placed: Sequence[str], tuned: Sequence[Sequence[str]]
) -> tuple[Layout, Params]:
    """A state of two parts. Args: people: the subject of each record by file (`public`, `p00`, `p01`)."""
    layout, params = Layout(folder), tiny_params({"parts": ["p00", "p01"], "slots": ["c00", "c01"]})
    left = iter(IDS)
    for name in ("public", "p00", "p01"):
        file = layout.public if name == "public" else layout.part(name)
        write_records(file, [(replace(make_record(subject), id=next(left)), b"image") for subject in people.get(name, [])])
    for number, part in enumerate(params.parts):
        write_ids(layout.leaves(part), placed[number::2], LEAF_SCHEMA)
    for slot, ids in zip(params.slots, tuned, strict=True):
        write_ids(layout.members(slot), ids, MEMBER_SCHEMA)
    return layout, params


PEOPLE = {"public": ["stock"], "p00": ["anna", "anna", "bert"], "p01": ["carl"]}


def test_ids_of_all_retained_records_are_told(tmp_path: Path) -> None:
    layout, params = build(tmp_path, PEOPLE, [], [[], []])
    assert [identity.decode() for identity in retained_ids(layout, params, KEY, {KEY.pseudonym("dora")})] == IDS[:5]


@pytest.mark.parametrize("subject", ["stock", "anna", "bert", "carl"])
def test_person_who_is_left_in_any_file_is_found(tmp_path: Path, subject: str) -> None:
    layout, params = build(tmp_path, PEOPLE, [], [[], []])
    message = refused(VerificationError, lambda: retained_ids(layout, params, KEY, {KEY.pseudonym(subject), "0" * 64}))
    assert subject not in message


def test_files_in_which_people_are_found_are_those_that_hold_them_wherever_they_should_be(tmp_path: Path) -> None:
    layout, params = build(tmp_path, {"public": ["carl"], "p00": ["anna"], "p01": ["carl", "anna"]}, [], [[], []])
    private = "artifacts/split/private"
    assert files_holding(layout, params, ["carl"]) == ("artifacts/split/public.parquet", f"{private}/p01.parquet")
    assert files_holding(layout, params, ["anna", "dora"]) == (f"{private}/p00.parquet", f"{private}/p01.parquet")
    assert files_holding(layout, params, []) == ()


def test_files_that_are_known_to_hold_nobody_of_them_cost_no_hmac_and_are_counted(tmp_path: Path) -> None:
    layout, params = build(tmp_path, PEOPLE, [], [[], []])
    key = Counting(KEY.secret)
    known = ["artifacts/split/public.parquet", "artifacts/split/private/p00.parquet"]
    key.asked.clear()
    assert len(retained_ids(layout, params, key, {KEY.pseudonym("dora")}, known)) == 5
    assert key.asked == ["carl"]


def test_checking_nothing_is_refused(tmp_path: Path) -> None:
    layout, params = build(tmp_path, {}, [], [[], []])
    assert "nothing" in refused(VerificationError, lambda: retained_ids(layout, params, KEY, {"0" * 64}))


def kept_of(layout: Layout, params: Params) -> Callable[[], int]:
    return lambda: require_partition(layout, params, retained_ids(layout, params, KEY, ()))


def test_each_training_record_in_one_cluster_passes(tmp_path: Path) -> None:
    layout, params = build(tmp_path, PEOPLE, IDS[1:5], [[IDS[4], IDS[1]], [IDS[2], IDS[3]]])
    assert kept_of(layout, params)() == 4


@pytest.mark.parametrize(
    ("placed", "tuned"),
    [
        (IDS[1:5], [IDS[1:3], IDS[3:4]]),
        (IDS[1:5], [IDS[1:4], IDS[3:5]]),
        (IDS[1:4], [IDS[1:4], IDS[4:5]]),
        (IDS[1:6], [IDS[1:4], IDS[4:6]]),
        ([IDS[0], IDS[39]], [[IDS[0], IDS[39]], []]),
        (["another"], [["another"], []]),
    ],
    ids=["in none", "in two", "placed nowhere", "in no part", "after all that are kept", "of another length"],
)
def test_record_in_no_cluster_in_two_or_in_no_part_is_refused(tmp_path: Path, placed: list[str], tuned: list[list[str]]) -> None:
    layout, params = build(tmp_path, PEOPLE, placed, tuned)
    refused(VerificationError, kept_of(layout, params))


LISTS = st.lists(st.sampled_from(IDS[:8]), max_size=6)


@given(placed=LISTS, first=LISTS, second=LISTS)
def test_columns_decide_as_sets_and_sorted_lists_do(
    tmp_path_factory: pytest.TempPathFactory, placed: list[str], first: list[str], second: list[str]
) -> None:
    layout, params = build(tmp_path_factory.mktemp("state"), PEOPLE, placed, [first, second])
    tuned = [*first, *second]
    right = set(placed) | set(tuned) <= set(IDS[:5]) and sorted(placed) == sorted(tuned)
    if right:
        assert kept_of(layout, params)() == len(tuned)
    else:
        refused(VerificationError, kept_of(layout, params))


def batch(before: dict[str, str], holding: tuple[str, ...] | None) -> Work:
    record = BatchRecord(example_plan(), before, holding=holding)
    return Work(Project(Layout(Path("nowhere"))), Claim("token", "one", 1, ()), record, ())


def test_file_is_trusted_only_if_its_batch_looked_there_in_vain_and_it_is_the_same_still() -> None:
    before = {"p00": "1", "p01": "2", "p02": "3"}
    now = {"p00": "1", "p01": "2", "p02": "4", "p03": "5"}
    assert verify._unchanged(batch(before, ("p00",)), now) == {"p01"}
    assert verify._unchanged(batch(before, None), now) == set(), "a batch of a version that did not look"


def test_batch_remembers_where_its_people_were_found(pipeline: FakePipeline) -> None:
    person = everybody()[6].subject
    layout, params = pipeline.layout, dvc_of(pipeline.layout).params
    files = files_holding(layout, params, [person])
    assert files
    done = pipeline.forget(person)
    with pipeline.process() as project:
        assert project.ledger.get_batch(str(done.batch_id)).holding == files
    assert files_holding(layout, params, [person]) == ()
