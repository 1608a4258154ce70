"""Evaluation: numbers of small groups are not told; without tests there is no accuracy; the paper's clustering is exact too."""

import random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import Lab, make_params, make_record, members_on, refused, slot_names, tiny_params, whole_numbers
from hypothesis import given, settings
from hypothesis import strategies as st

from lmeraser.clusters.global_head import GlobalHead
from lmeraser.core.errors import ParamsError
from lmeraser.data.records import Record
from lmeraser.learn.anchors import cluster_by_anchors
from lmeraser.learn.cluster_model import ClusterModel
from lmeraser.serve.evaluation import LEAST, Scores, accuracy, calibration_error, deletion_cost, log_loss, score
from lmeraser.serve.picture import draw_overview
from lmeraser.serve.serving import Answers, ServedModel
from stages.evaluate import tell
from unit.test_serving import cluster_models

LABELS = ["one", "two"]


def scored(lab: Lab, people: list[tuple[str, str, int]]) -> Scores:
    """Score a model that always says "one": people are (subject, true label, index of the nearest cluster)."""
    tests: list[Record] = [
        make_record(subject, label, split="test", image=b"%d" % index) for index, (subject, label, _) in enumerate(people)
    ]
    said = np.tile([0.9, 0.1], (len(people), 1))
    nearest = np.array([cluster for _, _, cluster in people], dtype=np.int64)
    answers = Answers(LABELS, said, said, said, said[:, ::-1], nearest)
    head = GlobalHead(np.zeros((2, 16)), np.zeros(2), LABELS, 16)
    prototypes = np.zeros((2, lab.backbone.dim))
    clusters: list[ClusterModel | None] = [*cluster_models(lab.backbone.dim)[:2]]
    sizes = np.array([9.0, 40.0])
    model = ServedModel(tiny_params(), lab.backbone, lab.skeleton, prototypes, ["c00", "c01"], clusters, sizes, head)
    return score(model, tests, answers, [3, 2])  # the second cluster holds forty records of two people


def test_small_groups_show_no_number(lab: Lab) -> None:
    crowd = [(f"p{index}", "one", 0) for index in range(3)]
    few = [(f"q{index % 2}", "two", 1) for index in range(10)]  # ten records of two people: below min_group 3
    scores = scored(lab, crowd + few)
    classes = scores.classes.set_index("label")
    assert [*classes.loc["one"]] == [3, 1.0]
    assert classes.loc[["two"]].isna().to_numpy().all()
    clusters = scores.clusters.set_index("slot")
    assert [*clusters.loc["c00", ["records", "subjects", "test_records", "accuracy"]]] == [9, 3, 3, 1.0]
    assert clusters.loc[["c01"]].isna().to_numpy().all()


def test_table_of_scores_names_labels_and_slots_and_nobody(lab: Lab) -> None:
    scores = scored(lab, [(f"CANARY-{index}", "one", 0) for index in range(5)])
    assert "CANARY" not in scores.classes.to_csv() + scores.clusters.to_csv()


def test_accuracy_is_told_for_the_model_and_each_of_its_parts(lab: Lab) -> None:
    scores = scored(lab, [("a", "one", 0), ("b", "one", 0), ("c", "two", 1), ("d", "unknown", 1)])
    assert scores.overall == {"served": 0.5, "clusters_soft": 0.5, "clusters_hard": 0.5, "global_head": 0.25}


def test_without_tests_there_is_no_accuracy(lab: Lab) -> None:
    scores = scored(lab, [])
    assert set(scores.overall.values()) == {None}
    assert scores.classes.empty
    assert scores.clusters["accuracy"].isna().all()
    assert accuracy(np.zeros((0, 2)), LABELS, []) is None


def test_label_that_the_model_does_not_know_counts_as_wrong() -> None:
    assert accuracy(np.array([[1.0, 0.0], [1.0, 0.0]]), LABELS, ["one", "three"]) == 0.5


SAID = np.array([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]])


def test_log_loss_is_the_mean_of_what_the_true_label_was_given_and_never_infinite() -> None:
    assert log_loss(SAID[:2], LABELS, ["one", "two"]) == pytest.approx((np.log(2) + np.log(4 / 3)) / 2, abs=1e-6)
    assert log_loss(SAID[2:], LABELS, ["two"]) == pytest.approx(-np.log(LEAST), abs=1e-6)
    assert log_loss(SAID, LABELS, ["three"] * 3) == pytest.approx(-np.log(LEAST), abs=1e-6), "a label that it does not know"
    assert log_loss(SAID[2:], LABELS, ["one"]) == 0
    assert log_loss(SAID[:0], LABELS, []) is None


def test_calibration_error_is_the_gap_between_what_is_said_and_what_is_right() -> None:
    sure = np.tile([0.9, 0.1], (10, 1))
    assert calibration_error(sure, LABELS, ["one"] * 9 + ["two"]) == pytest.approx(0)
    assert calibration_error(sure, LABELS, ["one"] * 10) == pytest.approx(0.1)
    assert calibration_error(sure, LABELS, ["two"] * 10) == pytest.approx(0.9)
    # Too sure of some and not sure enough of others: gaps of two bins do not cancel.
    doubtful = np.tile([0.6, 0.4], (10, 1))
    assert calibration_error(np.vstack([sure, doubtful]), LABELS, ["one", "two"] * 5 + ["one"] * 10) == pytest.approx(0.4)
    assert calibration_error(np.array([[1.0, 0.0]]), LABELS, ["three"]) == 1
    assert calibration_error(sure[:0], LABELS, []) is None


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 6))
def test_calibration_error_does_not_depend_on_order_and_is_no_more_than_one(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    shares, known = rng.dirichlet(np.ones(k), n), [str(index) for index in range(k)]
    truth = [str(index) for index in rng.integers(0, k + 1, n)]
    error, order = calibration_error(shares, known, truth), rng.permutation(n)
    assert error is not None
    assert 0 <= error <= 1
    assert calibration_error(shares[order], known, [truth[row] for row in order]) == pytest.approx(error, abs=2e-6)


# what is told beside the yardstick


WEIGHTS = {"pretrain.weights": {"file": "hub", "sha256": None}, "pretrain.epochs": 0, "pretrain.small_stem": False}
DEPTHS = WEIGHTS | {"features.depths": [1, 2]}
BEST = DEPTHS | {"head.kind": "discriminant", "projection.kind": "plain", "features.grid": 2}
ADVICE: dict[str, tuple[dict[str, Any], float]] = {  # words: params, accuracy of the global head where 0.5 is served
    "set serve.mix to 0": ({}, 0.6),
    "set features.depths to several": (WEIGHTS, 0.5),
    "set head.kind to discriminant": (DEPTHS, 0.5),
    "set features.grid to 2": (BEST | {"features.grid": 1}, 0.5),
    "raise features.dim": (BEST | {"features.dim": 9}, 0.5),
    "set head.shrinkage, head.evenness and head.temperature to null": (BEST | {"head.evenness": 0.5}, 0.5),
    "python -m bench.choose": (BEST, 0.5),
}


@pytest.mark.parametrize("words", ADVICE)
def test_each_advice_is_given_where_it_helps(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes, head = ADVICE[words]
    told = {"served": 0.5, "global_head": head, "linear_head": 0.55, "linear_head_depths": None}
    tell(told, 100, make_params(changes))
    warning = capsys.readouterr().err.splitlines()[-1]
    assert "warning: served is 5.0 points below the linear head" in warning
    assert words in warning


def test_advice_about_clusters_is_not_given_where_none_answer(capsys: pytest.CaptureFixture[str]) -> None:
    told = {"served": 0.5, "global_head": 0.6, "linear_head": 0.55, "linear_head_depths": None}
    tell(told, 100, make_params({"serve.mix": 0.0}))
    assert "serve.mix" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("served", "last", "depths", "points"),
    [
        (0.8, 0.81, None, None),  # a point is no more than a point
        (0.8, 0.8101, None, "1.0"),
        (0.8, 0.79, 0.85, "5.0"),  # the better of the two
        (0.8, 0.85, 0.79, "5.0"),
        (0.9, 0.85, 0.79, None),
        (0.29, 0.3, None, None),
        (0.8, None, None, None),
        (None, None, None, None),
    ],
)
def test_warning_is_told_from_more_than_a_point_below_the_better_yardstick(
    served: float | None, last: float | None, depths: float | None, points: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"served": served, "global_head": served, "linear_head": last, "linear_head_depths": depths}
    tell(told, 100, make_params())
    lines = capsys.readouterr().err.splitlines()
    assert f"served accuracy {served} on 100 private test records" in lines[0]
    assert (f"(linear head on all data: {last}" in lines[0]) == (last is not None)
    assert len(lines) == (1 if points is None else 2)
    if points is not None:
        assert f"served is {points} points below the linear head; " in lines[1]


def test_cost_of_a_deletion_is_told_as_mean_and_worst_case() -> None:
    cost = deletion_cost(np.array([[1.0, 10, 0], [3.0, 40, 1]]), records=100, clusters=7)
    assert (cost["clusters"], cost["clusters_retrained_mean"], cost["clusters_retrained_max"]) == (7, 2.0, 3)
    assert (cost["records_share_mean"], cost["records_share_max"], cost["cut_changes_share"]) == (0.25, 0.4, 0.5)


def test_picture_is_a_function_of_the_numbers() -> None:
    metrics = {
        "accuracy": dict.fromkeys(("served", "clusters_soft", "clusters_hard", "global_head"), 0.5)
        | {"linear_head": None, "linear_head_depths": None}
    }
    clusters = pd.DataFrame({"slot": ["c00", "c01"], "records": [5, None], "accuracy": [0.5, None]})
    picture = draw_overview(metrics, clusters)
    assert picture.startswith(b"\x89PNG")
    assert picture == draw_overview(metrics, clusters)
    assert draw_overview(metrics, clusters[:0]).startswith(b"\x89PNG")  # no cluster is there to answer
    nothing = {"accuracy": dict.fromkeys(metrics["accuracy"])}
    assert draw_overview(nothing, clusters).startswith(b"\x89PNG")


# the paper's clustering


@settings(max_examples=15)
@given(st.randoms(use_true_random=False), st.integers(0, 2**32 - 1))
def test_anchor_clusters_do_not_depend_on_the_order_of_records(rng: random.Random, seed: int) -> None:
    members = members_on([0] * 25)
    features = whole_numbers(np.random.default_rng(seed), 25, 4)
    params = make_params({"cluster.method": "anchors", "cluster.anchors": 12, "cluster.k": 4}).cluster
    expected = cluster_by_anchors(members, features, params, slot_names(4))
    order = list(range(25))
    rng.shuffle(order)
    again = cluster_by_anchors([members[index] for index in order], features[order], params, slot_names(4))
    assert [(c.slot, c.members, c.prototype.tolist()) for c in again] == [
        (c.slot, c.members, c.prototype.tolist()) for c in expected
    ]
    assert sorted(member for made in expected for member in made.members) == sorted(members)
    assert len({made.slot for made in expected}) == len(expected) <= 4


@pytest.mark.parametrize("people", [1, 3])
def test_fewer_people_than_anchor_clusters_are_refused(people: int) -> None:
    params = make_params({"cluster.method": "anchors", "cluster.k": 4}).cluster
    members = members_on([0] * people)
    features = whole_numbers(np.random.default_rng(0), people, 4)
    message = refused(ParamsError, lambda: cluster_by_anchors(members, features, params, slot_names(4)))
    assert f"cluster.k is 4, but there are {people} private units" in message
