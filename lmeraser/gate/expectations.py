"""The validation gate's way to Great Expectations: counts come out, values never do.

Results carry an expectation's name, a column and how many rows fail. Every richer result format of Great Expectations,
and any value set of ids, would write personal values into results, so facts are joined first and judged as derived
columns.
"""

import logging
import os
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lmeraser.core.errors import ExpectationError

RESULT_FORMAT = {"result_format": "BASIC", "partial_unexpected_count": 0}


@dataclass(frozen=True)
class Expectation:
    """One expectation on one column (or on the whole table), by the name that Great Expectations gives it."""

    name: str  # snake case: expect_column_values_to_not_be_null
    column: str | None
    kwargs: dict[str, Any]

    @property
    def where(self) -> str:
        return f"column {self.column}" if self.column else "the table"


@dataclass(frozen=True)
class Failure:
    expectation: Expectation
    count: int  # rows that fail; 0 where the expectation is about the table
    rows: int

    def __str__(self) -> str:
        return f"{self.expectation.name} failed on {self.expectation.where}: {self.count} of {self.rows} rows"


def not_null(column: str) -> Expectation:
    return Expectation("expect_column_values_to_not_be_null", column, {})


def unique(column: str) -> Expectation:
    return Expectation("expect_column_values_to_be_unique", column, {})


def in_set(column: str, allowed: tuple[str | bool, ...]) -> Expectation:
    """`allowed` must be fixed words of the project, never ids or labels."""
    return Expectation("expect_column_values_to_be_in_set", column, {"value_set": list(allowed)})


def between(column: str, low: float, high: float | None) -> Expectation:
    return Expectation("expect_column_values_to_be_between", column, {"min_value": low, "max_value": high})


def length_between(column: str, low: int, high: int) -> Expectation:
    return Expectation("expect_column_value_lengths_to_be_between", column, {"min_value": low, "max_value": high})


def matches_no(column: str, pattern: str) -> Expectation:
    return Expectation("expect_column_values_to_not_match_regex", column, {"regex": pattern})


def rows_at_least(low: int) -> Expectation:
    return Expectation("expect_table_row_count_to_be_between", None, {"min_value": low})


def failures(frame: pd.DataFrame, expectations: list[Expectation]) -> list[Failure]:
    """Judge a frame; the failures in the order of the expectations (empty if all hold).

    Raises: ExpectationError if there is nothing to check: checking nothing is a failure.
    """
    if not expectations:
        raise ExpectationError("the gate has no expectation, expected at least one; restore lmeraser/gate from git and retry")
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # before the import, which reads it
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    suite = gx.ExpectationSuite(name="gate")
    for position, expectation in enumerate(expectations):
        kind = "".join(word.title() for word in expectation.name.split("_"))
        column = {"column": expectation.column} if expectation.column else {}
        # Results come back in another order: the position ties each to its expectation.
        judged = getattr(gx.expectations, kind)(**column, **expectation.kwargs, meta={"position": position})
        suite.add_expectation(judged)
    source = context.data_sources.add_pandas("frames")
    batch = source.add_dataframe_asset("frame").add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})
    results = batch.validate(suite, result_format=RESULT_FORMAT).results
    if len(results) != len(expectations):
        raise ExpectationError(
            f"Great Expectations judged {len(results)} of {len(expectations)} expectations, expected all of them; install its "
            "pinned version (`make install`) and retry"
        )
    positioned = []
    for result in results:
        if not result.success and result.expectation_config is not None:
            position = (result.expectation_config.meta or {})["position"]
            # An expectation that raised (its column is missing, say) has no result: it failed on every row.
            details = result.result or {}
            count = int(details.get("unexpected_count", 0 if "observed_value" in details else len(frame)))
            positioned.append((position, Failure(expectations[position], count, len(frame))))
    return [failure for _, failure in sorted(positioned, key=lambda pair: pair[0])]


def require(suite: str, frame: pd.DataFrame, expectations: list[Expectation]) -> int:
    """Raise ExpectationError naming suite, expectation, column and count; return how many expectations held."""
    failed = failures(frame, expectations)
    if failed:
        raise ExpectationError(
            f"validation suite {suite}: {failed[0]}, so nothing is trained; run `dvc repro`, and correct the source "
            "if it fails again"
        )
    return len(expectations)
