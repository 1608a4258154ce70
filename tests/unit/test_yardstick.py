"""The yardstick is converged, or refused; its penalty is chosen on public people, by those who are left out."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from builders import make_record, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax

from lmeraser.core.errors import StepFailedError
from lmeraser.data.records import Record
from lmeraser.serve import yardstick
from lmeraser.serve.yardstick import PENALTIES, UNTOLD, choose_penalty, drawn, fit, linear_head


def people(n: int, noise: float, seed: int = 0) -> tuple[NDArray[np.float32], list[Record]]:
    """(3n, 12) features of n people, three records each; the label hangs on the first feature and on noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(3 * n, 12)).astype(np.float32)
    labels = np.where(features[:, 0] + noise * rng.normal(size=3 * n) > 0, "one", "two")
    return features, [make_record(f"p{row // 3}", str(label), image=b"%d" % row) for row, label in enumerate(labels)]


def test_it_needs_tests_and_two_labels() -> None:
    features, records = people(7, 0.0)
    labels = [record.label for record in records]
    assert linear_head(features, labels, features, labels, 0.1) >= 0.9  # type: ignore[operator]
    assert linear_head(features, labels, features[:0], [], 1.0) is None
    assert linear_head(features, ["one"] * 21, features, labels, 1.0) is None


@settings(max_examples=10)
@given(st.sampled_from(PENALTIES), st.floats(0, 3), st.integers(0, 9))
def test_solution_is_where_the_gradient_is_zero(penalty: float, noise: float, seed: int) -> None:
    features, records = people(40, noise, seed)
    truth = np.array([record.label == "two" for record in records], dtype=np.float64)
    model = fit(features, [record.label for record in records], penalty)
    shares = softmax(np.c_[np.zeros(len(features)), features @ model.coef_[0] + model.intercept_[0]], axis=1)[:, 1]
    gradient = features.T.astype(np.float64) @ (shares - truth) + penalty * model.coef_[0]
    assert np.abs(gradient).max() / len(features) < 1e-4


def test_what_does_not_converge_is_told_with_what_to_do_and_never_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    features, records = people(40, 1.0)
    monkeypatch.setattr(yardstick, "ITERATIONS", 2)
    line = refused(StepFailedError, lambda: fit(features, [record.label for record in records], 0.01))
    assert "does not converge" in line
    assert "evaluate.linear_penalty" in line


def test_of_penalties_that_are_equally_good_the_middle_one_is_taken() -> None:
    features, records = people(30, 0.0)
    features[:, 0] = np.where(features[:, 0] > 0, 50, -50)  # so clear that each penalty answers all
    assert choose_penalty(features, records) == PENALTIES[len(PENALTIES) // 2]


def test_noisy_people_ask_for_a_greater_penalty_than_clear_ones() -> None:
    clear, noisy = choose_penalty(*people(60, 0.0)), choose_penalty(*people(30, 4.0))
    assert PENALTIES[0] <= clear < noisy <= PENALTIES[-1]


@settings(max_examples=5)
@given(st.randoms(use_true_random=False))
def test_choice_does_not_depend_on_names_of_labels_or_on_a_repeat(rng: random.Random) -> None:
    features, records = people(20, 1.0, rng.randrange(5))
    chosen = choose_penalty(features, records)
    assert chosen == choose_penalty(features, records)
    swapped = [make_record(record.subject, {"one": "eins", "two": "zwei"}[record.label]) for record in records]
    assert chosen == choose_penalty(features, swapped)


def test_nobody_is_scored_by_a_fit_that_saw_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each person's features are a code of their own with a random label: only a fit that saw them could tell it."""
    rng = np.random.default_rng(1)
    codes = np.repeat(np.eye(30, dtype=np.float32) * 9, 4, axis=0)
    labels = np.repeat(rng.integers(0, 2, 30), 4)
    records = [make_record(f"p{row // 4}", str(label), image=b"%d" % row) for row, label in enumerate(labels)]
    seen: list[set[bytes]] = []
    true_fit = yardstick.fit

    def watched_fit(features: NDArray[Any], labels: Sequence[str], penalty: float) -> object:
        seen.append({row.tobytes() for row in features})
        return true_fit(features, labels, penalty)

    monkeypatch.setattr(yardstick, "fit", watched_fit)
    choose_penalty(codes, records)
    assert seen
    assert all(len(rows) < 30 for rows in seen), "each fold leaves whole people out"


def test_where_public_records_cannot_tell_it_is_the_same_each_time() -> None:
    features, records = people(1, 0.0)
    assert choose_penalty(features, records) == UNTOLD
    assert choose_penalty(features[:0], []) == UNTOLD


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(1, 40), st.randoms(use_true_random=False))
def test_people_it_is_chosen_on_are_whole_and_a_function_of_who_is_there(who: list[int], most: int, rng: random.Random) -> None:
    records = [make_record(f"p{person}", image=b"%d" % row) for row, person in enumerate(who)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yardstick, "CHOSEN_ON", most)
        chosen = {records[row].subject for row in drawn(records)}
        assert {record.subject for row, record in enumerate(records) if row not in drawn(records)}.isdisjoint(chosen)
        shuffled = rng.sample(records, len(records))
        assert {shuffled[row].subject for row in drawn(shuffled)} == chosen
        assert chosen
