"""Metrics of a state are read strictly, an error names no value, and small groups show neither number nor name."""

import json

import pytest
from builders import CANARY_LABEL, refused
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.errors import BadInputError
from lmeraser.report.states import (
    CLASS_COLUMNS,
    CLASSES,
    CLUSTER_COLUMNS,
    CLUSTERS,
    METRICS,
    MOST_BYTES,
    Group,
    read_classes,
    read_clusters,
    read_metrics,
    read_state,
)

GOOD = b'{"accuracy": {"served": 0.9, "linear_head": null}, "log_loss": 0.25, "records": {"train": 30}}'
HEAD_OF_CLASSES = (",".join(CLASS_COLUMNS) + "\n").encode()
HEAD_OF_CLUSTERS = (",".join(CLUSTER_COLUMNS) + "\n").encode()


def test_every_number_has_its_dotted_name() -> None:
    state = read_state("here", {METRICS: GOOD}, 5)
    assert state.metrics == {"accuracy.served": 0.9, "accuracy.linear_head": None, "log_loss": 0.25, "records.train": 30}
    assert (state.classes, state.clusters, state.outs) == ({}, {}, {})


def test_small_group_is_counted_and_its_label_is_nowhere() -> None:
    rows = f"big,20,0.95\n{CANARY_LABEL},,\n{CANARY_LABEL}-2,4,1.0\n".encode()
    groups, hidden = read_classes(HEAD_OF_CLASSES + rows, "here", 5)
    assert groups == {"big": Group(20, 0.95)}
    assert hidden == 2, "also one of fewer records than people of a group that is shown"


def test_cluster_of_few_people_has_no_size_also_under_stricter_params() -> None:
    rows = b"c00,72,14,30.0,1.0\nc01,33,7,,\nc02,,,8,0.5\n"
    groups, hidden, sizes = read_clusters(HEAD_OF_CLUSTERS + rows, "here", 5)
    assert sizes == {"c00": 72, "c01": 33, "c02": None}
    assert (sorted(groups), hidden) == (["c00", "c02"], 1)
    assert read_clusters(HEAD_OF_CLUSTERS + rows, "here", 10)[2] == {"c00": 72, "c01": None, "c02": None}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b'{"a": "CANARY"}',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"a": true}',
        b"\xff{}",
        b"[" * 10**5,
    ],
)
def test_damaged_metrics_are_one_line_that_says_where(data: bytes) -> None:
    assert "there: metrics/metrics.json" in refused(BadInputError, lambda: read_state("there", {METRICS: data}, 5))


@pytest.mark.parametrize(
    "rows",
    [
        b"CANARY,x,1\n",
        b"CANARY,1\n",
        b"CANARY,1,2\n",
        b"CANARY,-3,0.5\n",
        b"CANARY,2.5,0.5\n",
        b"CANARY,9,nan\n",
        b"CANARY,9,inf\n",
        b"CANARY,9,0.5\nCANARY,9,0.5\n",
        b'"CANARY,9,0.5\n',
        b"CANARY\xff,9,0.5\n",
    ],
)
def test_damaged_table_is_one_line_that_names_no_value(rows: bytes) -> None:
    files = {METRICS: GOOD, CLASSES: HEAD_OF_CLASSES + rows}
    assert "there: metrics/classes.csv" in refused(BadInputError, lambda: read_state("there", files, 5))


def test_table_of_other_columns_and_slot_that_is_no_name_are_refused() -> None:
    assert "line 1" in refused(BadInputError, lambda: read_classes(b"label,CANARY\n", "there", 5))
    assert "line 2" in refused(BadInputError, lambda: read_clusters(HEAD_OF_CLUSTERS + b"CANARY/x,1,1,1,1\n", "there", 5))
    twice = HEAD_OF_CLUSTERS + b"c00,9,9,9,1\nc00,9,9,9,1\n"
    assert "line 3" in refused(BadInputError, lambda: read_state("there", {METRICS: GOOD, CLUSTERS: twice}, 5))


def test_state_without_metrics_and_one_too_large_are_refused() -> None:
    assert "nothing was evaluated" in refused(BadInputError, lambda: read_state("there", {}, 5))
    refused(BadInputError, lambda: read_state("there", {METRICS: b" " * (MOST_BYTES + 1)}, 5))


@given(st.binary(max_size=200))
def test_any_bytes_are_metrics_or_one_line(data: bytes) -> None:
    for read in (lambda: read_metrics(data, "there"), lambda: read_classes(HEAD_OF_CLASSES + data, "there", 5)):
        said = "there"
        try:
            read()
        except BadInputError as error:
            said = str(error)
        assert said.startswith("there")
        assert said.splitlines() == [said]


@given(st.dictionaries(st.text(max_size=8), st.none() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_come_out_as_they_went_in(metrics: dict[str, float | None]) -> None:
    assert read_metrics(json.dumps(metrics).encode(), "there") == metrics
