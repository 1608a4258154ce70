"""Expectations: each fails when it must, and its line tells expectation, column and count, never a value."""

import pandas as pd
import pytest
from builders import CANARY_LABEL, CANARY_SUBJECT, assert_clean, refused

from lmeraser.core.errors import ExpectationError
from lmeraser.gate import expectations as expect

FRAME = pd.DataFrame(
    {
        "id": [CANARY_SUBJECT, CANARY_SUBJECT, None, "d"],
        "label": [CANARY_LABEL, "", "x", "yy"],
        "good": [True, True, False, False],
        "number": [1.0, 2.0, 3.0, float("nan")],
        "split": ["train", "test", CANARY_LABEL, "test"],
    }
)


@pytest.mark.parametrize(
    ("expectation", "count"),
    [
        (expect.not_null("id"), 1),
        (expect.unique("id"), 2),
        (expect.in_set("good", (True,)), 2),
        (expect.in_set("split", ("train", "test")), 1),
        (expect.between("number", 1, 2), 1),
        (expect.length_between("label", 1, 2), 2),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_expectation_that_fails_names_itself_its_column_and_how_many_rows(expectation: expect.Expectation, count: int) -> None:
    failures = expect.failures(FRAME, [expect.rows_at_least(1), expectation])
    assert [(failure.expectation, failure.count, failure.rows) for failure in failures] == [(expectation, count, 4)]
    message = refused(ExpectationError, lambda: expect.require("records", FRAME, [expectation]))
    assert "suite records" in message
    assert f"{expectation.name} failed on column {expectation.column}: {count} of 4 rows" in message
    assert "run `dvc repro`" in message


def test_every_failure_is_told_in_the_order_of_the_expectations() -> None:
    wanted = [expect.unique("id"), expect.rows_at_least(1), expect.in_set("good", (True,)), expect.not_null("id")]
    failures = expect.failures(FRAME, wanted)
    assert [failure.expectation for failure in failures] == [wanted[0], wanted[2], wanted[3]]
    for failure in failures:
        assert_clean(str(failure))


def test_expectations_that_hold_are_counted() -> None:
    wanted = [expect.rows_at_least(4), expect.not_null("good"), expect.between("number", 1, 3)]
    assert expect.require("records", FRAME, wanted) == 3
    assert expect.failures(FRAME, wanted) == []


@pytest.mark.parametrize("expectation", [expect.not_null("absent"), expect.in_set("absent", (True,)), expect.unique("absent")])
def test_missing_column_fails_on_every_row(expectation: expect.Expectation) -> None:
    assert "column absent: 4 of 4 rows" in refused(ExpectationError, lambda: expect.require("records", FRAME, [expectation]))


def test_table_without_rows_fails_a_minimum_of_rows() -> None:
    message = refused(ExpectationError, lambda: expect.require("records", FRAME[:0], [expect.rows_at_least(1)]))
    assert "failed on the table: 0 of 0 rows" in message


def test_checking_nothing_is_a_failure() -> None:
    assert "no expectation" in refused(ExpectationError, lambda: expect.require("records", FRAME, []))
