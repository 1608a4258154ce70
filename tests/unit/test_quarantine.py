"""Quarantine: what is left out gives no answer any more, the copy stays whole, and nothing answers where nothing may."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import Lab, png, refused, striped
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmeraser.clusters.global_head import Sums, save_head, solve
from lmeraser.core.errors import ParamsError, ProjectError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params
from lmeraser.serve.predicting import predict_files
from lmeraser.serve.quarantine import (
    INTERIM,
    WHOLE,
    WITHHELD,
    Quarantine,
    copy_artifacts,
    drop_other_copies,
    lift,
    read_quarantine,
    write_quarantine,
)
from lmeraser.serve.serving import ServedModel
from stages.interim_head import interim_head as solve_copies
from unit.test_ridge import RULES, fourier, labels_for, same, sums_of
from unit.test_serving import saved, served

ROOT = Path(__file__).resolve().parents[2]
SLOTS = ["c00", "c01", "c02", "c03"]


def project_of(lab: Lab, folder: Path) -> Layout:
    layout = saved(lab, folder)
    layout.params.write_text("seed: 0\n")
    layout.lock.write_text("stages: {}\n")
    return layout


def quarantined(layout: Layout, slots: list[str], head: str = WHOLE, withheld: bool = False) -> Quarantine:
    copy_artifacts(layout, layout, "one")
    made = Quarantine("one", slots, head, withheld)
    write_quarantine(layout, made)
    return made


@pytest.mark.parametrize("slot", SLOTS)
def test_cluster_in_quarantine_has_no_weight_and_its_images_go_to_the_next(lab: Lab, tmp_path: Path, slot: str) -> None:
    layout = project_of(lab, tmp_path)
    whole = ServedModel.load(layout, lab.params)
    quarantined(layout, [slot])
    left = ServedModel.load_served(layout, lab.params)
    images = striped(20, 3)[1]
    assert slot not in left.slots
    nearest = [left.slots[index] for index in left.predict(images).nearest]
    for before, after in zip(whole.predict(images).nearest, nearest, strict=True):
        assert after != slot
        assert whole.slots[before] in (slot, after)  # only the images of that cluster move
    # Its files may be gone: nothing of them is read.
    left_files = layout.private_state / "quarantine" / "one" / "artifacts" / "tune" / f"{slot}.safetensors"
    left_files.unlink()
    assert np.array_equal(ServedModel.load_served(layout, lab.params).predict(images).served, left.predict(images).served)


def test_withheld_head_leaves_the_clusters_and_no_cluster_leaves_the_head(lab: Lab, tmp_path: Path) -> None:
    layout = project_of(lab, tmp_path)
    images = striped(5, 3)[1]
    quarantined(layout, ["c01"], WITHHELD)
    answers = ServedModel.load_served(layout, lab.params).predict(images)
    assert np.array_equal(answers.served, answers.clusters_soft)
    assert "fourth" not in answers.labels  # which only the head knows
    quarantined(layout, SLOTS, WHOLE)
    answers = ServedModel.load_served(layout, lab.params).predict(images)
    assert np.array_equal(answers.served, answers.global_head)
    assert (answers.nearest == -1).all()


def test_half_that_is_left_out_says_nothing(lab: Lab, tmp_path: Path) -> None:
    layout = project_of(lab, tmp_path / "project")
    (tmp_path / "image.png").write_bytes(png(1))
    quarantined(layout, SLOTS, WHOLE)
    (answer,) = predict_files(layout, lab.params, [tmp_path / "image.png"], None)
    assert answer["clusters"] == {"label": None, "probability": 0.0, "weight": 0.0}
    assert answer["global_head"]["weight"] == 1.0


def test_interim_head_is_the_one_that_answers(lab: Lab, tmp_path: Path) -> None:
    layout = project_of(lab, tmp_path)
    made = quarantined(layout, [], INTERIM)
    other = served(lab).head
    assert other is not None
    save_head(made.layout(layout).root / "interim.safetensors", replace(other, weight=other.weight * 2))
    interim = ServedModel.load_served(layout, lab.params).head
    assert interim is not None
    assert np.array_equal(interim.weight, other.weight * 2)


def test_nothing_answers_where_nothing_may(lab: Lab, tmp_path: Path) -> None:
    layout = project_of(lab, tmp_path)
    quarantined(layout, SLOTS, WITHHELD)
    assert "retry in a moment" in refused(ProjectError, lambda: ServedModel.load_served(layout, lab.params))
    quarantined(layout, [], WITHHELD, withheld=True)
    assert "the model is withheld" in refused(ProjectError, lambda: ServedModel.load_served(layout, lab.params))
    layout.quarantine.write_text("CANARY")
    assert "lmeraser resume" in refused(ProjectError, lambda: ServedModel.load_served(layout, lab.params))


def test_copy_stays_whole_while_the_workspace_changes_and_takes_no_space(lab: Lab, tmp_path: Path) -> None:
    layout = project_of(lab, tmp_path)
    before = layout.head.read_bytes()
    copy = copy_artifacts(layout, layout, "one")
    assert copy.head.stat().st_ino == layout.head.stat().st_ino
    write_atomically(layout.head, b"half")
    layout.router.unlink()
    assert copy.head.read_bytes() == before
    assert copy.router.exists()
    copy_artifacts(copy, layout, "two")
    drop_other_copies(layout, "two")
    assert [path.name for path in layout.quarantine_copies.iterdir()] == ["two"]
    lift(layout)
    assert not layout.quarantine_copies.exists()
    assert read_quarantine(layout) is None
    lift(layout)  # again, as after a crash


def test_without_open_requests_the_artifacts_are_served(lab: Lab, tmp_path: Path) -> None:
    layout = project_of(lab, tmp_path)
    assert ServedModel.load_served(layout, lab.params).slots == ServedModel.load(layout, lab.params).slots


@given(st.integers(0, 2**32 - 1), st.integers(3, 30), st.integers(1, 4), st.data())
def test_head_without_some_records_is_the_head_that_never_saw_them(seed: int, n: int, parts: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    features, labels, part = fourier(rng, n), labels_for(rng, n), rng.integers(0, parts, n)
    leaving = np.zeros(n, dtype=bool)
    leaving[data.draw(st.lists(st.integers(0, n - 1), max_size=n - 1, unique=True))] = True

    def divided(rows: NDArray[np.bool_]) -> list[Sums]:
        return [
            sums_of(features[rows & (part == place)], [labels[row] for row in np.flatnonzero(rows & (part == place))])
            for place in range(parts)
        ]

    left_out = sums_of(features[leaving], [labels[row] for row in np.flatnonzero(leaving)])
    for rule in RULES.values():
        without = solve(divided(np.ones(n, dtype=bool)), rule, leaving=left_out)
        assert same(without, solve(divided(~leaving), rule))


def test_copy_that_a_newer_request_dropped_is_no_failure_but_the_current_one_is(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    params = load_params(ROOT / "params.yaml")
    layout.private_state.mkdir()
    write_quarantine(layout, Quarantine("newer", [], WITHHELD, False))
    solve_copies(layout, params, ["dropped"])
    with pytest.raises(ParamsError, match=r"params\.yaml is missing"):
        solve_copies(layout, params, ["newer"])
