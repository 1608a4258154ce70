"""Real stages in this process, over depths and public axes: who leaves was never there, to the byte, and evaluation tells all."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from builders import TINY, Row, raw_params, write_json, write_source

from lmeraser.clusters.global_head import load_head
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.data.records import TRAIN, read_records
from lmeraser.erase.erased import ErasedList
from lmeraser.serve.serving import ServedModel
from lmeraser.sources import splitting
from stages.cluster import cluster
from stages.embed import embed
from stages.evaluate import evaluate
from stages.head import head
from stages.interim_head import _solve_without
from stages.pretrain import pretrain
from stages.recipe import recipe
from stages.skeleton import skeleton
from stages.split import split
from stages.tune import tune

DEEP = TINY | {
    "source": {"kind": "manifest", "path": "people", "erase": False},
    "parts": ["p00", "p01"],
    "slots": ["c00", "c01", "c02", "c03"],
    "features.depths": [1, 3],
    "features.grid": 2,
    "features.dim": 7,
    "projection.kind": "plain",
    "projection.levels": 127,
    "head.kind": "discriminant",
    "cluster.n_max": 12,
    "cluster.n_min": 3,
    "evaluate.min_group": 2,
}
KINDS: dict[str, dict[str, Any]] = {
    "none": {"tune.kind": "none", "serve.mix": 0.0},
    "closed": {"tune.kind": "closed"},
    "sgd": {"tune.kind": "sgd"},
}
each_kind = pytest.mark.parametrize("kind", KINDS)
PERSON = "person-3"


def everybody() -> list[Row]:
    """Eight public and ten private people, three images each; one private person alone has a label; one more image a test."""
    rows = []
    for number in range(8):
        rows += [Row(f"public-{number}", ("one", "two")[place % 2], "public", seed=10 * number + place) for place in range(3)]
    for number in range(10):
        labels = ("one", "two", "rare" if f"person-{number}" == PERSON else "one")
        rows += [Row(f"person-{number}", label, seed=1000 + 10 * number + place) for place, label in enumerate(labels)]
        rows.append(Row(f"person-{number}", "two", split="test", seed=1009 + 10 * number))
    return rows


def built(folder: Path, rows: list[Row], changes: Mapping[str, Any]) -> tuple[Layout, Params]:
    """All stages but the gate, one after the other."""
    folder.mkdir(parents=True)
    layout = Layout(folder)
    layout.params.write_text(yaml.safe_dump(raw_params(DEEP | dict(changes))), encoding="utf-8")
    write_source(folder / "people", rows)
    ErasedList(None, frozenset()).write(layout.erased)
    params = load_params(layout.params)
    split(layout, params, [])
    pretrain(layout, params, [])
    skeleton(layout, params, [])
    recipe(layout, params, [])
    embed(layout, params, list(params.parts))
    cluster(layout, params, [])
    tune(layout, params, list(params.slots))
    head(layout, params, [])
    return layout, params


@pytest.fixture(scope="module", autouse=True)
def _without_great_expectations() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "check_table", lambda *_: 0)  # it takes seconds to import
        yield


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Layout, Params]]:
    """Everybody's, of each kind. Never change one."""
    folder = tmp_path_factory.mktemp("everybody")
    return {kind: built(folder / kind, everybody(), changes) for kind, changes in KINDS.items()}


@each_kind
def test_head_without_a_person_is_the_one_of_a_project_that_never_had_them(
    projects: dict[str, tuple[Layout, Params]], tmp_path: Path, kind: str
) -> None:
    layout, params = projects[kind]
    rows = [row.named(index) for index, row in enumerate(everybody())]
    never, _ = built(tmp_path / "never", [row for row in rows if row.subject != PERSON], KINDS[kind])
    for same in ("backbone", "skeleton"):
        assert getattr(never, same).read_bytes() == getattr(layout, same).read_bytes()
    copy = Layout(Path(shutil.copytree(layout.root, tmp_path / "copy")))
    leaving = [
        record.id for part in params.parts for record in read_records(layout.part(part), TRAIN) if record.subject == PERSON
    ]
    assert len(leaving) == 3
    write_json(copy.root / "without.json", leaving)
    shutil.copytree(
        never.clusters, copy.clusters, dirs_exist_ok=True
    )  # the cut that is left, where a cluster's head stands on it
    _solve_without(copy)
    assert (copy.root / "interim.safetensors").read_bytes() == never.head.read_bytes() != layout.head.read_bytes()
    assert "rare" in load_head(layout.head).labels
    assert "rare" not in load_head(never.head).labels


def test_head_without_people_of_both_parts_is_the_one_of_a_project_that_never_had_them(
    projects: dict[str, tuple[Layout, Params]], tmp_path: Path
) -> None:
    """Each part's sums of those who leave are made once, and added."""
    layout, params = projects["closed"]
    several = {f"person-{number}" for number in range(5)}
    rows = [row.named(index) for index, row in enumerate(everybody())]
    never, _ = built(tmp_path / "never", [row for row in rows if row.subject not in several], KINDS["closed"])
    copy = Layout(Path(shutil.copytree(layout.root, tmp_path / "copy")))
    leaving = [
        (record.id, part)
        for part in params.parts
        for record in read_records(layout.part(part), TRAIN)
        if record.subject in several
    ]
    assert {part for _, part in leaving} == set(params.parts)
    write_json(copy.root / "without.json", [record for record, _ in leaving])
    shutil.copytree(never.clusters, copy.clusters, dirs_exist_ok=True)
    _solve_without(copy)
    assert (copy.root / "interim.safetensors").read_bytes() == never.head.read_bytes() != layout.head.read_bytes()


@each_kind
def test_head_without_anybody_s_training_records_is_the_head(
    projects: dict[str, tuple[Layout, Params]], tmp_path: Path, kind: str
) -> None:
    """Of people with test images alone."""
    layout, _ = projects[kind]
    copy = Layout(Path(shutil.copytree(layout.root, tmp_path / "copy")))
    write_json(copy.root / "without.json", [])
    _solve_without(copy)
    assert (copy.root / "interim.safetensors").read_bytes() == layout.head.read_bytes()


@each_kind
def test_built_twice_it_has_the_same_bytes(projects: dict[str, tuple[Layout, Params]], tmp_path: Path, kind: str) -> None:
    layout, params = projects[kind]
    again, _ = built(tmp_path / "again", everybody()[::-1], KINDS[kind])
    for made in ("skeleton", "head", "router"):
        assert getattr(again, made).read_bytes() == getattr(layout, made).read_bytes()
    for slot in params.slots:
        assert again.tuned(slot).read_bytes() == layout.tuned(slot).read_bytes()


@each_kind
def test_evaluation_tells_of_the_halves_that_there_are(
    projects: dict[str, tuple[Layout, Params]], tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, params = projects[kind]
    copy = Layout(Path(shutil.copytree(layout.root, tmp_path / "copy")))
    evaluate(copy, params, [])
    metrics = json.loads((copy.metrics / "metrics.json").read_bytes())
    accuracy = metrics["accuracy"]
    clusters = (accuracy["clusters_soft"], accuracy["clusters_hard"])
    assert (clusters == (None, None)) == (kind == "none")
    assert (metrics["deletion"] is None) == (kind != "sgd")
    if kind == "none":
        assert accuracy["served"] == accuracy["global_head"]
    assert 0 <= metrics["calibration_error"] <= 1
    assert metrics["log_loss"] > 0
    assert None not in (accuracy["linear_head"], accuracy["linear_head_depths"], metrics["linear_penalty_depths"])
    assert f"over all depths: {accuracy['linear_head_depths']}" in capsys.readouterr().err
    assert (copy.metrics / "overview.png").read_bytes().startswith(b"\x89PNG")
    slots = (copy.metrics / "clusters.csv").read_text().splitlines()
    assert (len(slots) == 1) == (kind == "none")


def test_project_without_clusters_answers_by_the_global_head_alone(projects: dict[str, tuple[Layout, Params]]) -> None:
    layout, params = projects["none"]
    model = ServedModel.load_served(layout, params)
    assert (model.clusters, model.slots, model.mix) == ([], [], 0.0)
    answers = model.predict(np.random.default_rng(0).integers(0, 255, (5, 8, 8, 1), dtype=np.uint8))
    assert np.array_equal(answers.served, answers.global_head)
    assert np.allclose(answers.served.sum(1), 1)
    assert (answers.nearest == -1).all()
    assert not answers.clusters_soft.any()


def test_clusters_in_closed_form_differ_from_each_other_and_from_the_global_head(
    projects: dict[str, tuple[Layout, Params]],
) -> None:
    layout, params = projects["closed"]
    model = ServedModel.load_served(layout, params)
    assert len(model.slots) > 1
    images = np.random.default_rng(0).integers(0, 255, (9, 8, 8, 1), dtype=np.uint8)
    answers = model.predict(images)
    for half in (answers.clusters_soft, answers.clusters_hard, answers.global_head):
        assert np.allclose(half.sum(1), 1)
    assert not np.allclose(answers.clusters_hard, answers.global_head)
    assert len(set(answers.nearest.tolist())) > 1
