"""Updating a stage from the state before gives the bytes of running it whole, whatever history led there. What was touched is
refused."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import preloading
import pytest
from builders import Lab, Row, make_lab, write_json
from kills import Kill, killing
from numpy.typing import NDArray
from staged import ANCHORS, LABELS, PARTS, STOCK, Project, crowd, named

from flows.run.build import drop_drafts
from lmeraser.core.digest import part_of, shard_of
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.data.decoding import decode_all
from lmeraser.data.records import TRAIN, Part, read_records
from lmeraser.erase.facts import identity_of
from lmeraser.pipeline.before import Before, open_before
from lmeraser.serve.quarantine import WITHHELD, Quarantine, copy_artifacts, write_quarantine
from stages.cluster import cluster
from stages.embed import embed
from stages.head import head
from stages.interim_head import interim_head
from stages.runtime import chain
from stages.split import split
from stages.update.cluster import update as update_cluster
from stages.update.embed import update as update_embed
from stages.update.split import update as update_split

SHARDS = (3, 1, 2, 7)  # of a part, by the seed of a history
MORE = pytest.mark.campaign("half a minute a seed on a slow processor")
WAYS: dict[str, dict[str, Any]] = {
    "clusters of people": {},
    "clusters of records": {"cluster.unit": "record"},
    "random clusters in closed form": {
        "cluster.method": "random",
        "tune.kind": "closed",
        "head.kind": "discriminant",
        "head.shrinkage": 40.0,
        "head.temperature": 2.0,
        "projection.kind": "plain",
        "projection.levels": 127,
    },
}


@pytest.fixture(scope="module", params=WAYS.values(), ids=list(WAYS))
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, dict[str, Any]]:
    changes: dict[str, Any] = {"skeleton.leaves": 6, **request.param}
    return make_lab(tmp_path_factory.mktemp("lab"), changes), changes


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=MORE) for seed in range(1, 4))])
def test_update_equals_whole_file_by_file_after_any_history(
    way: tuple[Lab, dict[str, Any]], seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for parts of several shards, each embedded by itself; what is made of the parts is the same for any number."""
    monkeypatch.setattr("stages.embed.LOAD", 0)
    rng = np.random.default_rng(seed)
    lab, changes = way
    own = changes | {"shards": SHARDS[seed]}
    project, rows = Project.make(tmp_path / "updated", lab, own), named([*STOCK, *ANCHORS, *crowd(rng, 14)])
    project.give(rows)
    project.run_whole()
    gone: set[str] = set()
    for step in range(4):
        people = sorted({row.subject for row in rows if row.subject.startswith("anna")} - gone)
        leaving = set(rng.choice(people, size=int(rng.integers(0, 4)), replace=False)) if step % 2 == 0 else set()
        before = project.before(PARTS if step % 2 == 0 else None)
        if step % 2 == 0:
            project.erase(leaving)
            gone |= leaving
        else:
            rows = another_source(rng, rows, step)
            project.give(rows)
            if step == 3:  # who came with this source and who was there leave at once
                came = sorted({row.subject for row in rows if row.subject.startswith("anna")} - {*people} - gone)
                leaving = {str(rng.choice(came)), str(rng.choice(people))}
                project.erase(leaving)
                gone |= leaving
        project.update(before)
        whole, otherwise = (
            run_whole(tmp_path / f"whole-{step}-{shards}", lab, changes | {"shards": shards}, rows, gone)
            for shards in (SHARDS[seed], int(rng.choice(SHARDS)))
        )
        assert project.files == whole.files, step
        assert without_records(project) == without_records(otherwise), step


def run_whole(root: Path, lab: Lab, changes: dict[str, Any], rows: Sequence[Row], gone: set[str]) -> Project:
    """A project that never had some people."""
    shutil.rmtree(root, ignore_errors=True)
    project = Project.make(root, lab, changes)
    project.give([row for row in rows if row.subject not in gone])
    project.run_whole()
    return project


def without_records(project: Project) -> dict[str, bytes]:
    """What is made of the parts."""
    return {name: content for name, content in project.files.items() if not name.startswith("split/private/")}


def another_source(rng: np.random.Generator, rows: list[Row], step: int) -> list[Row]:
    """New people, records more and fewer of those who are there, and labels that were wrong."""
    kept = [row for row in rows if not row.subject.startswith("anna") or rng.random() > 0.1]
    corrected = [
        Row(row.subject, str(rng.choice(LABELS)), row.visibility, row.split, row.seed, row.path)
        if row.subject.startswith("anna") and rng.random() < 0.1
        else row
        for row in kept
    ]
    more = [Row(row.subject, row.label, seed=int(rng.integers(2**31))) for row in rows if row.subject == "anna-3"]
    return named([*corrected, *more, *crowd(rng, 3, start=100 * step)])


def flip(path: Path) -> None:
    """Another byte in the middle, in the file itself: the link shows it too."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


BREAKS: dict[str, Callable[[Before], Path]] = {
    "a part": lambda before: before.part("p01"),
    "placements": lambda before: before.leaves("p01"),
    "sums": lambda before: before.sums("p01"),
    "sizes": lambda before: before.sizes,
    "router": lambda before: before.router,
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(path.read_bytes()[:-9]), Path.unlink])
@pytest.mark.parametrize("place", BREAKS.values(), ids=list(BREAKS))
def test_state_before_that_was_touched_is_never_carried_over(
    lab: Lab, place: Callable[[Before], Path], damage: Callable[[Path], None], tmp_path: Path
) -> None:
    project = Project.make(tmp_path / "project", lab, {})
    rows = named([*STOCK, *ANCHORS, *crowd(np.random.default_rng(5), 12)])
    project.give(rows)
    project.run_whole()
    before = project.before(PARTS)
    damage(place(before))
    project.erase({row.subject for row in rows if row.subject.startswith("anna")} - {"anna-0"})
    answers = [update_split(before, project.layout, project.params, [])]
    if not answers[0]:
        split(project.layout, project.params, [])
    answers.append(update_embed(before, project.layout, project.params, PARTS))
    if not answers[1]:
        embed(project.layout, project.params, PARTS)
    answers.append(update_cluster(before, project.layout, project.params, []))
    if not answers[2]:
        cluster(project.layout, project.params, [])
    head(project.layout, project.params, [])
    assert not all(answers)
    fresh = Project.make(tmp_path / "fresh", lab, {})
    fresh.give([row for row in rows if not row.subject.startswith("anna") or row.subject == "anna-0"])
    fresh.run_whole()
    assert project.files == fresh.files


CHAIN = ["split", *(f"embed@{part}" for part in PARTS), "cluster", "head"]


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("left", ["the old state", "half of it", "nothing", "the old state, on a disk that was full"])
def test_update_that_was_killed_before_any_write_ends_with_the_same_bytes_at_the_next_try(
    lab: Lab, left: str, shards: int, tmp_path: Path
) -> None:
    full, changes = "full" in left, {"shards": shards}
    rng = np.random.default_rng(7)
    project, rows = Project.make(tmp_path / "project", lab, changes), named([*STOCK, *ANCHORS, *crowd(rng, 9)])
    project.give(rows)
    project.run_whole()
    folder = project.before(PARTS).root.relative_to(project.layout.root)
    leaving = {"anna-1", "anna-4"}
    project.erase(leaving)
    fresh = Project.make(tmp_path / "fresh", lab, changes)
    fresh.give([row for row in rows if row.subject not in leaving])
    fresh.run_whole()

    def attempt(copy: Project, at: int | None = None) -> Kill:
        with killing(copy.layout.root, at, full=full) as kill, suppress(*([OSError] if at and full else [])):
            there = copy.layout.root / folder
            chain.run(copy.layout, copy.params, CHAIN, str(folder) if there.is_dir() else None)
        return kill

    def copied(name: str) -> Project:
        shutil.copytree(project.layout.root, tmp_path / name, copy_function=os.link)  # no file is ever written into
        return Project(Layout(tmp_path / name), lab)

    undisturbed = copied("undisturbed")
    writes = attempt(undisturbed).writes
    assert undisturbed.files == fresh.files
    step = 2 if preloading.cold() else 6  # in `make campaign` every other one: each kind of project has its half
    for at in range(1 if shards == 1 else 2, writes + 1, step):
        copy = copied(f"killed-{at}")
        kill = attempt(copy, at)
        assert kill.dead
        if left == "half of it":
            rng.choice(sorted(path for path in (copy.layout.root / folder).rglob("*.parquet") if path.is_file())).unlink()
        if left == "nothing":
            shutil.rmtree(copy.layout.root / folder)
        drop_drafts(copy.layout)
        attempt(copy)
        assert copy.files == fresh.files, kill.where


def links(path: Path) -> dict[str, int]:
    return {file.relative_to(path).as_posix(): file.stat().st_ino for file in path.rglob("*") if file.is_file()}


def test_erasure_writes_the_shards_of_who_leaves_and_links_all_others(lab: Lab, tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project", lab, {"shards": 5})
    rows = named([*STOCK, *ANCHORS, *crowd(np.random.default_rng(7), 20)])
    project.give(rows)
    project.run_whole()
    people, private = {"anna-3", "anna-11"}, project.layout.private
    theirs = {f"{PARTS[part_of(person, 3)]}.parquet/{shard_of(person, 5):04d}.parquet" for person in people}
    was, before = links(private), project.before(sorted({name[:3] for name in theirs}))
    project.erase(people)
    project.update(before)
    now = links(private)
    assert now.keys() == was.keys()
    assert {name for name in was if now[name] != was[name]} == theirs
    assert len(was) == 15, "all others are the files that they were: DVC need not read them again"


@pytest.mark.parametrize(("load", "calls"), [(0, 5), (2**26, 1)])
def test_images_of_one_shard_are_decoded_at_once_or_of_several_small_ones(
    load: int, calls: int, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project.make(tmp_path / "project", lab, {"shards": 5})
    project.give(named([*STOCK, *ANCHORS, *crowd(np.random.default_rng(7), 20)]))
    split(project.layout, project.params, [])
    decoded: list[int] = []

    def counted(images: Sequence[bytes], params: Params, name: str) -> NDArray[np.uint8]:
        decoded.append(len(images))
        return decode_all(images, params, name)

    monkeypatch.setattr("stages.embed.LOAD", load)
    monkeypatch.setattr("stages.embed.decode_all", counted)
    embed(project.layout, project.params, ["p01"])
    held = [len(read_records(shard, TRAIN)) for shard in Part.of(project.layout.part("p01")).each()]
    assert decoded == (held if calls == 5 else [sum(held)])


FAULTS: dict[str, Callable[[Path, Path], object]] = {
    "flipped": lambda theirs, _: flip(theirs),
    "missing": lambda theirs, _: theirs.unlink(),
    "another one flipped": lambda _, other: flip(other),
    "another one missing": lambda _, other: other.unlink(),
    "one too many": lambda theirs, _: shutil.copy(theirs, theirs.with_name("0003.parquet")),
    "a stranger": lambda theirs, _: theirs.with_name("note.txt").write_text("x"),
    "changed places": lambda theirs, other: (theirs.rename(theirs.with_name("x")), other.rename(theirs)),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_part_of_the_state_before_that_has_a_damaged_missing_or_strange_shard_is_split_again(
    fault: Callable[[Path, Path], object], lab: Lab, tmp_path: Path
) -> None:
    project = Project.make(tmp_path / "project", lab, {"shards": 3})
    rows = named([*STOCK, *ANCHORS, *crowd(np.random.default_rng(8), 12)])
    project.give(rows)
    project.run_whole()
    person = next(row.subject for row in rows if row.subject.startswith("anna") and row.split == TRAIN)
    part, number = PARTS[part_of(person, 3)], shard_of(person, 3)
    before = project.before([part])
    theirs, other = (before.part(part) / f"{place:04d}.parquet" for place in (number, (number + 1) % 3))
    fault(theirs, other)
    project.erase({person})
    assert not update_split(before, project.layout, project.params, [])
    split(project.layout, project.params, [])
    if not update_embed(before, project.layout, project.params, [part]):
        embed(project.layout, project.params, [part])
    cluster(project.layout, project.params, [])
    head(project.layout, project.params, [])
    fresh = run_whole(tmp_path / "fresh", lab, {"shards": 3}, rows, {person})
    assert project.files == fresh.files


def test_facts_of_a_state_are_those_of_its_links_until_one_shard_is_another(lab: Lab, tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project", lab, {"shards": 3})
    project.give(named([*STOCK, *ANCHORS]))
    project.run_whole()
    before, params = project.before(PARTS), project.params
    assert identity_of(before, params) == identity_of(project.layout, params) is not None
    shard = project.layout.part("p01") / "0001.parquet"
    content = shard.read_bytes()
    shard.unlink()
    assert identity_of(project.layout, params) is None
    shard.write_bytes(content)
    assert identity_of(before, params) != identity_of(project.layout, params)


def test_folder_takes_the_place_of_a_file_and_the_other_way_round(lab: Lab, tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project", lab, {"shards": 3})
    project.give(named([*STOCK, *ANCHORS, *crowd(np.random.default_rng(9), 8)]))
    project.run_whole()
    before, part, kept = project.before(PARTS), project.layout.part("p00"), project.files
    assert before.has_same(part, layout=project.layout)
    shutil.rmtree(part)
    part.write_bytes(b"a file")
    assert not before.has_same(part, layout=project.layout)
    assert before.carry_over(part, project.layout)
    (part / "0003.parquet").write_bytes(b"of another number of shards")
    assert not before.has_same(part, layout=project.layout)
    assert before.carry_over(part, project.layout)
    assert before.has_same(part, layout=project.layout)
    assert project.files == kept
    assert before.is_whole(before.part("p00"), before.part("p01"), before.public)
    (before.part("p00") / "0003.parquet").write_bytes(b"a stranger")
    assert not before.is_whole(before.part("p00"))
    assert before.is_whole(before.part("p01"))
    (before.part("p01") / "0002.parquet").unlink()
    assert not before.is_whole(before.part("p01"))


def test_state_of_other_params_backbone_or_public_records_is_not_opened(lab: Lab, tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project", lab, {})
    project.give(named([*STOCK, *ANCHORS]))
    project.run_whole()
    folder = project.before(PARTS).root
    for path in (project.layout.params, project.layout.backbone, project.layout.skeleton, project.layout.public):
        whole = path.read_bytes()
        path.unlink()  # replaced, as stages do: the link stays what it was
        path.write_bytes(whole + b"\n")
        assert open_before(folder, project.layout) is None
        path.write_bytes(whole)
        assert open_before(folder, project.layout) is not None
    (folder / "before.json").write_text("{}")
    assert open_before(folder, project.layout) is None


def test_last_label_is_left_to_the_stage_that_refuses_it(lab: Lab, tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project", lab, {})
    project.give(named([*STOCK, Row("anna-1", "one", seed=70), Row("anna-2", "two", seed=71)]))
    project.run_whole()
    before = project.before(PARTS)
    project.erase({"anna-2"})
    assert not update_split(before, project.layout, project.params, [])


def test_who_was_embedded_when_the_request_was_accepted_is_not_decoded_again(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project.make(tmp_path / "project", lab, {})
    rows = named([*STOCK, *ANCHORS, *crowd(np.random.default_rng(6), 8)])
    project.give(rows)
    project.run_whole()
    before, leaving = project.before(PARTS), {"anna-1", "anna-2"}
    accept(project, leaving)
    project.erase(leaving)
    assert update_split(before, project.layout, project.params, [])
    decoded: list[int] = []

    def counted(images: Sequence[bytes], params: Params, name: str) -> NDArray[np.uint8]:
        decoded.append(len(images))
        return decode_all(images, params, name)

    monkeypatch.setattr("stages.update.embed.decode_all", counted)
    assert update_embed(before, project.layout, project.params, PARTS)
    assert not any(decoded)
    updated = project.files
    embed(project.layout, project.params, PARTS)
    assert project.files == updated
    project.erase({"anna-3"})
    assert update_split(before, project.layout, project.params, [])
    assert update_embed(before, project.layout, project.params, PARTS)
    assert any(decoded), "sums of some people are not those of others"


def accept(project: Project, people: set[str]) -> None:
    """Leave people out of what is served, and solve the head without them."""
    layout = project.layout
    copy = copy_artifacts(layout, layout, "folder")
    records = [record for part in PARTS for record in read_records(layout.part(part), TRAIN) if record.subject in people]
    write_json(copy.root / "without.json", [record.id for record in records])
    write_quarantine(layout, Quarantine("folder", [], WITHHELD, False))
    interim_head(layout, project.params, ["folder"])
