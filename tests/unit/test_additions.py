"""What `plan --add` says is what an addition then does, and nothing is changed by asking."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import Lab, Row, refused, write_source
from staged import ANCHORS, PARTS, STOCK, Project, crowd, named

from lmeraser.core.errors import ManifestError
from lmeraser.erase.additions import plan_addition
from lmeraser.erase.facts import gather_facts
from stages.newcomers import newcomers


@pytest.fixture
def project(lab: Lab, tmp_path: Path) -> Project:
    made = Project.make(tmp_path / "project", lab, {})
    made.give(first_rows())
    made.run_whole()
    return made


def first_rows() -> list[Row]:
    return named([*STOCK, *ANCHORS, *crowd(np.random.default_rng(3), 12)])


def planned(project: Project, rows: list[Row]) -> dict[str, Any]:
    folder = write_source(project.layout.root / "to-come", named(rows))
    newcomers(project.layout, project.params, [str(folder)])
    return plan_addition(gather_facts(project.layout, project.params), json.loads(project.layout.newcomers.read_bytes()))


def members(project: Project) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in (project.layout.clusters / "members").iterdir()}


@pytest.mark.parametrize("seed", range(3))
def test_plan_of_an_addition_names_exactly_the_clusters_that_it_changes(project: Project, seed: int) -> None:
    more = crowd(np.random.default_rng(seed), 4, start=50)
    more += [Row("anna-1", "one", seed=900 + seed)]  # somebody who is there gets another record
    files, slots = project.files, members(project)
    plan = planned(project, more)
    assert project.files == files
    state = project.before(None)
    project.give([*first_rows(), *named(more)])
    project.update(state)
    now = members(project)
    assert {slot for slot in slots if slots[slot] != now[slot]} == {*plan["slots_retrained"], *plan["slots_emptied"]}
    assert (plan["known"], plan["records"]) == (1, len(more))
    assert plan["training"] == sum(row.split == "train" for row in more)
    layout = project.layout
    assert plan["parts"] == [part for part in PARTS if not state.has_same(layout.part(part), layout=layout)]


def test_records_that_are_there_and_people_who_were_erased_add_nothing(project: Project) -> None:
    project.erase({"anna-gone"})
    there = [row for row in first_rows() if row.visibility != "public"]
    plan = planned(project, [*there, Row("anna-gone", "one", seed=5)])
    assert (plan["records"], plan["slots_retrained"], plan["erased"]) == (0, [], 1)
    assert plan["repeated"] == len(there)


def test_public_records_are_refused_in_one_line(project: Project) -> None:
    line = refused(ManifestError, lambda: planned(project, [Row("stock-77", "one", "public", seed=77)]))
    assert "leave the public rows out" in line
