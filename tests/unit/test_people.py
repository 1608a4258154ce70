"""People by columns: who is in which slot and at which leaf is what it is record by record; other records are refused."""

import random
from pathlib import Path

import numpy as np
import pytest
from builders import CANARY_SUBJECT, make_record, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmeraser.clusters.files import Cluster, Member, save_clusters, save_placements
from lmeraser.clusters.people import People
from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.data.records import Record, write_records

PARTS, SLOTS = ("p00", "p01"), ["c00", "c01", "c02"]
NAMES = ("b", "a", "Ä", "\U0001d537", "z", "zz", CANARY_SUBJECT)


def written(folder: Path, seed: int, count: int) -> tuple[Layout, dict[str, list[Record]], dict[str, int]]:
    """Records by part, one of four for testing; the slot and the leaf of each is drawn."""
    rng, layout = random.Random(seed), Layout(folder)
    records: dict[str, list[Record]] = {part: [] for part in PARTS}
    slot_of = {}
    clusters: dict[str, list[Member]] = {slot: [] for slot in SLOTS}
    for number in range(count):
        split = "test" if number % 4 == 3 else "train"
        record = make_record(rng.choice(NAMES), rng.choice(("one", "two")), split=split, image=b"%d" % number)
        part = rng.choice(PARTS)
        records[part].append(record)
        if split == "train":
            slot_of[record.id] = rng.randrange(len(SLOTS))
            member = Member(record.id, record.sha256, record.label, record.subject, number, part)
            clusters[SLOTS[slot_of[record.id]]].append(member)
    for part, held in records.items():
        write_records(layout.part(part), [(record, b"image") for record in held])
        placed = sorted(member for members in clusters.values() for member in members if member.part == part)
        save_placements(layout.leaves(part), placed, [True] * len(placed), 3)
    made = [Cluster(slot, 0, 0, 0, sorted(members), np.zeros(2)) for slot, members in clusters.items()]
    save_clusters(layout.clusters, made, SLOTS, {})
    return layout, records, slot_of


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40))
def test_columns_tell_what_the_records_tell(tmp_path: Path, seed: int, count: int) -> None:
    layout, records, slot_of = written(tmp_path, seed, count)
    people = People.of(layout, PARTS)
    training = [record for part in PARTS for record in sorted(records[part]) if record.split == "train"]
    names = sorted({record.subject for record in training})
    assert [names[number] for number in people.subject] == [record.subject for record in training]
    assert (len(people), people.count) == (len(training), len(names))
    assert people.labels == {record.label for record in training}
    expected = [len({r.subject for r in training if slot_of[r.id] == slot}) for slot in range(len(SLOTS))]
    assert people.in_slots(layout, SLOTS) == expected
    assert people.in_slots(layout, SLOTS[1:]) == expected[1:]
    assert people.in_slots(layout, []) == []
    numbers = {record.sha256: number for number, record in enumerate(make_record("", "", image=b"%d" % n) for n in range(count))}
    assert people.leaves(layout).tolist() == [numbers[record.sha256] for record in training]


@pytest.mark.parametrize("what", ["leaves", "slots"])
def test_records_that_no_part_holds_are_refused(tmp_path: Path, what: str) -> None:
    layout, records, _ = written(tmp_path, 0, 30)
    part = next(part for part in PARTS if any(record.split == "train" for record in records[part]))
    write_records(layout.part(part), [])
    people = People.of(layout, PARTS)
    if what == "leaves":
        assert "not of the same records" in refused(ProjectError, lambda: people.leaves(layout))
    else:
        assert "records that no part has" in refused(ProjectError, lambda: people.in_slots(layout, SLOTS))


def test_nobody_is_no_error(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for part in PARTS:
        write_records(layout.part(part), [])
        save_placements(layout.leaves(part), [], [], 3)
    save_clusters(layout.clusters, [], SLOTS, {})
    people = People.of(layout, PARTS)
    assert (len(people), people.count, people.labels) == (0, 0, frozenset())
    assert people.leaves(layout).tolist() == []
    assert people.in_slots(layout, SLOTS) == [0, 0, 0]
