"""Who loses some records may come to stand elsewhere: the plan, which asks the network, says exactly which clusters change."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import Lab, Row, png, write_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from staged import ANCHORS, PARTS, STOCK, Project, crowd, named

from lmeraser.clusters.files import load_sizes
from lmeraser.clusters.global_head import load_head
from lmeraser.core.digest import sha256
from lmeraser.core.errors import ProjectError
from lmeraser.data.records import TRAIN, read_records, read_table
from lmeraser.erase.erased import ErasedList, load_or_create_key
from lmeraser.erase.facts import gather_facts
from lmeraser.erase.plan import Lost, Move, Plan, make_plan
from lmeraser.serve.quarantine import WITHHELD, Quarantine, copy_artifacts, write_quarantine
from stages.interim_head import interim_head
from stages.moves import moves


def built(root: Path, lab: Lab, changes: dict[str, Any]) -> tuple[Project, list[Row]]:
    project, rows = Project.make(root, lab, changes), named([*STOCK, *ANCHORS, *crowd(np.random.default_rng(11), 14)])
    project.give(rows)
    project.run_whole()
    return project, rows


def plan_of(project: Project, digests: Sequence[str]) -> Plan:
    def asked(lost: Sequence[Lost]) -> list[Move]:
        path = project.layout.moves("x")
        path.parent.mkdir(exist_ok=True)
        write_json(path, {"folder": None, "lost": lost})
        moves(project.layout, project.params, ["x"])
        return [Move(*numbers) for numbers in json.loads(path.read_bytes())]

    return make_plan([], gather_facts(project.layout, project.params), False, digests, asked)


def erase_images(project: Project, digests: Sequence[str]) -> None:
    key = load_or_create_key(project.layout.private_state / "subject.key")
    ErasedList.known(project.layout).add(map(key.image_pseudonym, digests), key).write(project.layout.erased)


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    names = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    return {Path(name).stem for name in names if name.startswith("cluster/members/")}


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@pytest.mark.parametrize("changes", [{"shards": 3}, {"cluster.unit": "record"}], ids=["subject", "record"])
def test_update_equals_whole_and_only_planned_clusters_change_where_single_images_leave(
    lab: Lab, changes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("moves")
    project, rows = built(folder / "project", lab, changes)
    seeds = sorted({row.seed for row in rows if row.subject.startswith("anna")})
    leaving = data.draw(st.lists(st.sampled_from(seeds), min_size=1, max_size=5, unique=True))
    digests = [sha256(png(seed)) for seed in leaving]
    planned, was = plan_of(project, digests), project.files
    before = project.before(planned.parts)
    erase_images(project, digests)
    project.update(before)
    fresh = Project.make(folder / "fresh", lab, changes)
    fresh.give([row for row in rows if row.seed not in leaving])
    fresh.run_whole()
    assert project.files == fresh.files
    assert changed(was, project.files) == {*planned.slots_retrained, *planned.slots_emptied}


def test_moves_are_asked_of_each_loss_apart_and_the_question_names_no_record_afterwards(lab: Lab, tmp_path: Path) -> None:
    project, _ = built(tmp_path / "project", lab, {})
    facts = gather_facts(project.layout, project.params)
    placed = facts.placements.to_pylist()
    units = {row["unit"]: [other["id"] for other in placed if other["unit"] == row["unit"]] for row in placed}
    losses: list[Lost] = [(identity,) for ids in units.values() if len(ids) > 1 for identity in ids]
    path = project.layout.moves("x")
    path.parent.mkdir(exist_ok=True)

    def ask(lost: Sequence[Lost]) -> list[list[int]]:
        write_json(path, {"folder": None, "lost": lost})
        moves(project.layout, project.params, ["x"])
        assert not any(identity in path.read_text() for ids in lost for identity in ids)
        answer: list[list[int]] = json.loads(path.read_bytes())
        return answer

    assert ask(losses) == [ask([loss])[0] for loss in losses]
    assert any(now != then for _, now, then in ask(losses)), "the test is about people who move"


def test_plan_of_who_loses_some_records_is_refused_where_no_network_can_be_asked(lab: Lab, tmp_path: Path) -> None:
    project, rows = built(tmp_path / "project", lab, {})
    facts = gather_facts(project.layout, project.params)
    several = next(row for row in rows if sum(other.subject == row.subject and other.split == TRAIN for other in rows) > 2)
    with pytest.raises(ProjectError):
        make_plan([], facts, False, [sha256(png(several.seed))])


@pytest.mark.parametrize("number", range(3))
def test_closed_heads_of_meanwhile_leave_single_images_out_where_they_stand(lab: Lab, number: int, tmp_path: Path) -> None:
    changes = {"tune.kind": "closed", "head.kind": "discriminant"}
    project, rows = built(tmp_path / "project", lab, changes)
    layout = project.layout
    theirs = [row for row in rows if row.subject.startswith("anna") and row.split == TRAIN]
    several = [row for row in theirs if sum(row.subject == other.subject for other in theirs) > 1]
    leaving = several[number::3]
    digests = {sha256(png(row.seed)) for row in leaving}
    copy = copy_artifacts(layout, layout, "folder")
    records = [record for part in PARTS for record in read_records(layout.part(part), TRAIN) if record.sha256 in digests]
    write_json(copy.root / "without.json", [record.id for record in records])
    write_quarantine(layout, Quarantine("folder", [], WITHHELD, False))
    interim_head(layout, project.params, ["folder"])
    meanwhile = load_head(copy.root / "interim.safetensors")
    gone = {record.id for record in records}
    placed = {row["id"]: row["leaf"] for part in PARTS for row in read_table(layout.leaves(part), ("id", "leaf")).to_pylist()}
    private = [record for part in PARTS for record in read_records(layout.part(part), TRAIN)]
    standing = Counter((placed[record.id], record.label) for record in private if record.id not in gone)
    assert meanwhile.clusters is not None
    for size in load_sizes(layout.clusters):
        here = np.flatnonzero(meanwhile.clusters.cluster == meanwhile.clusters.slots.index(size.slot))
        shown = {meanwhile.labels[label] for label in meanwhile.clusters.label[here].tolist()}
        assert shown == {label for leaf, label in standing if size.first_leaf <= leaf <= size.last_leaf}
    fresh = Project.make(tmp_path / "fresh", lab, changes)
    fresh.give([row for row in rows if row not in leaving])
    fresh.run_whole()
    wanted = load_head(fresh.layout.head)
    assert np.array_equal(meanwhile.weight, wanted.weight)
    assert np.array_equal(meanwhile.bias, wanted.bias)
