"""One state of a project as its metrics tell it, read from the bytes of `metrics/`: strict, and with small groups left out.

Whether bytes lay in the workspace or in a commit is the caller's business. Nothing here names a label of a small group: a row
whose group is too small is counted and dropped, also where the params have become stricter since the metrics were written.
"""

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lmeraser.core.errors import BadInputError
from lmeraser.core.strict_json import strict_json

METRICS, CLASSES, CLUSTERS = "metrics/metrics.json", "metrics/classes.csv", "metrics/clusters.csv"
CLASS_COLUMNS = ("label", "test_records", "accuracy")
CLUSTER_COLUMNS = ("slot", "records", "subjects", "test_records", "accuracy")
SLOT = re.compile(r"[a-z][a-z0-9]{0,15}")  # as params.yaml names slots
MOST_BYTES = 2**24  # of a file of metrics
DEPTH = 8  # of nested metrics

Number = float | int | None


@dataclass(frozen=True)
class Group:
    """The test records of one label, or those that one cluster answers. Attributes: accuracy: a share in [0, 1]."""

    test_records: int
    accuracy: float


@dataclass(frozen=True)
class State:
    """What metrics and locks say of one state.

    Attributes:
        name: how people are told of it; metrics: every number by its dotted name, as `dvc metrics` has them.
        classes, clusters: groups that are large enough, by label and by slot. classes_hidden, clusters_hidden: how many are not.
        sizes: training records of each cluster, None where its people are too few to tell.
        outs: digest of each artifact by path, as the locks record it; empty where there is no lock.
        certificates: request id of each certificate, by its number.
    """

    name: str
    metrics: Mapping[str, Number]
    classes: Mapping[str, Group] = field(default_factory=dict)
    clusters: Mapping[str, Group] = field(default_factory=dict)
    classes_hidden: int = 0
    clusters_hidden: int = 0
    sizes: Mapping[str, int | None] = field(default_factory=dict)
    outs: Mapping[str, str] = field(default_factory=dict)
    certificates: Mapping[int, str] = field(default_factory=dict)


def read_state(name: str, files: Mapping[str, bytes], least: int, **facts: Any) -> State:
    """Read a state from its files by path.

    Args: files: METRICS, and the two tables if they are there; least: subjects of a group that is shown; facts: of `State`.
    Raises: BadInputError naming state, file and line, and no value.
    """
    if METRICS not in files:
        raise BadInputError(
            f"{name} has no {METRICS}: nothing was evaluated there; run `lmeraser build`, or name a revision that holds them"
        )
    metrics = read_metrics(files[METRICS], f"{name}: {METRICS}")
    classes, classes_hidden = read_classes(files.get(CLASSES), f"{name}: {CLASSES}", least)
    clusters, clusters_hidden, sizes = read_clusters(files.get(CLUSTERS), f"{name}: {CLUSTERS}", least)
    return State(name, metrics, classes, clusters, classes_hidden, clusters_hidden, sizes, **facts)


def read_metrics(data: bytes, where: str) -> dict[str, Number]:
    """Every number of metrics.json by its dotted name. Raises: BadInputError."""
    try:
        raw = strict_json(_limited(data, where))
        if not isinstance(raw, dict):
            raise ValueError("no object")
        return dict(_flat(raw, "", 0))
    except ValueError as error:
        raise BadInputError(
            f"{where} is damaged: expected a JSON object of numbers; restore it from git, or run `lmeraser build`"
        ) from error


def _flat(raw: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Number]]:
    for key, value in raw.items():
        if isinstance(value, dict) and depth < DEPTH:
            yield from _flat(value, f"{prefix}{key}.", depth + 1)
        elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            if isinstance(value, float) and not math.isfinite(value):  # 1e999 is JSON
                raise ValueError("not finite")
            yield prefix + key, value
        else:
            raise ValueError("not a number")


def _limited(data: bytes, where: str) -> bytes:
    if len(data) > MOST_BYTES:
        raise BadInputError(f"{where} has more than {MOST_BYTES:,} bytes, the most that metrics have; restore it from git")
    return data


def read_classes(data: bytes | None, where: str, least: int) -> tuple[dict[str, Group], int]:
    """Groups by label, and how many are hidden. Raises: BadInputError naming the line."""
    groups: dict[str, Group] = {}
    rows = list(_rows(data, where, CLASS_COLUMNS))
    for line, row in rows:
        group = _group(row, where, line, least)
        if row["label"] in groups:
            raise _damaged(where, line, "a label stands there twice")
        if group:
            groups[row["label"]] = group
    return groups, len(rows) - len(groups)


def read_clusters(data: bytes | None, where: str, least: int) -> tuple[dict[str, Group], int, dict[str, int | None]]:
    """Groups by slot, how many are hidden, and every cluster's training records. Raises: BadInputError naming the line."""
    groups: dict[str, Group] = {}
    sizes: dict[str, int | None] = {}
    for line, row in _rows(data, where, CLUSTER_COLUMNS):
        slot = row["slot"]
        if not SLOT.fullmatch(slot) or slot in sizes:
            raise _damaged(where, line, "the slot is no name of a slot, or stands there twice")
        people, records = _count(row["subjects"], where, line), _count(row["records"], where, line)
        sizes[slot] = records if people is not None and people >= least else None
        group = _group(row, where, line, least)
        if group:
            groups[slot] = group
    return groups, len(sizes) - len(groups), sizes


def _rows(data: bytes | None, where: str, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with the number of the line; none where there is no file."""
    if data is None:
        return
    try:
        reader = csv.reader(io.StringIO(_limited(data, where).decode(), newline=""), strict=True)
        if tuple(next(reader, ())) != columns:
            raise _damaged(where, 1, f"expected the columns {', '.join(columns)}")
        for cells in reader:
            if len(cells) != len(columns):
                raise _damaged(where, reader.line_num, f"expected {len(columns)} values")
            yield reader.line_num, dict(zip(columns, cells, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadInputError(f"{where} is not CSV in UTF-8; restore it from git, or run `lmeraser build`") from error


def _damaged(where: str, line: int, why: str) -> BadInputError:
    return BadInputError(f"{where}, line {line}: {why}; restore it from git, or run `lmeraser build`")


def _group(row: Mapping[str, str], where: str, line: int, least: int) -> Group | None:
    """None where the group is too small: fewer records than `least` subjects could have."""
    count, share = _count(row["test_records"], where, line), _number(row["accuracy"], where, line)
    if share is not None and not 0 <= share <= 1:
        raise _damaged(where, line, "the accuracy is not in [0, 1]")
    return None if count is None or share is None or count < least else Group(count, share)


def _number(text: str, where: str, line: int) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError as error:
        raise _damaged(where, line, "expected a number or nothing") from error
    if value is not None and not math.isfinite(value):
        raise _damaged(where, line, "expected a finite number")
    return value


def _count(text: str, where: str, line: int) -> int | None:
    """A whole number, which may be written as 30.0."""
    value = _number(text, where, line)
    if value is not None and (value < 0 or value != int(value)):
        raise _damaged(where, line, "expected a count")
    return None if value is None else int(value)
