"""Evaluate: how good the served model and each part of it are on private test records, and what a deletion costs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmeraser.data.records import Record, labels_of
from lmeraser.serve.serving import Answers, ServedModel

LEAST = 1e-6  # probability that a log-loss counts at least, as a label that is not known has none
BINS = 15


def accuracy(probabilities: NDArray[np.float64], known: Sequence[str], truth: Sequence[str]) -> float | None:
    """Share of rows whose likeliest label is the true one; a label the model does not know counts as wrong."""
    if not len(truth):
        return None
    guess = np.asarray(known)[probabilities.argmax(1)]
    return round(float(np.mean(guess == np.asarray(truth))), 6)


def _of_truth(probabilities: NDArray[np.float64], known: Sequence[str], truth: Sequence[str]) -> NDArray[np.float64]:
    """(n,) the probability that each row gives its true label; 0 for a label that the model does not know."""
    place = {label: index for index, label in enumerate(known)}
    columns = [place.get(label, -1) for label in truth]
    given = probabilities[np.arange(len(columns)), columns]
    return np.where(np.array(columns) >= 0, given, 0.0)


def log_loss(probabilities: NDArray[np.float64], known: Sequence[str], truth: Sequence[str]) -> float | None:
    """Mean negative log of the true label's probability, none counted below LEAST; None without rows."""
    if not len(truth):
        return None
    return round(float(-np.log(np.maximum(_of_truth(probabilities, known, truth), LEAST)).mean()), 6)


def calibration_error(probabilities: NDArray[np.float64], known: Sequence[str], truth: Sequence[str]) -> float | None:
    """Expected calibration error over BINS bins of the likeliest label's probability (Guo et al. 2017, arXiv:1706.04599)."""
    if not len(truth):
        return None
    confidence = probabilities.max(1)
    right = np.asarray(known)[probabilities.argmax(1)] == np.asarray(truth)
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(float((confidence - right)[place == index].sum())) for index in range(BINS)]
    return round(sum(gaps) / len(truth), 6)


@dataclass(frozen=True)
class Scores:
    """Overall numbers, and one table a class and a cluster; groups of fewer than `min_group` subjects show none."""

    overall: dict[str, Any]
    classes: pd.DataFrame
    clusters: pd.DataFrame


def _grouped(
    names: Sequence[str],
    group: Sequence[str],
    right: NDArray[np.bool_],
    subjects: Sequence[str],
    least: int,
    column: str,
) -> pd.DataFrame:
    records, correct = Counter(group), Counter(compress(group, right))
    people = Counter(name for name, _ in {*zip(group, subjects, strict=True)})
    rows = []
    for name in names:
        published = people[name] >= least
        share = round(correct[name] / records[name], 6) if published else None
        rows.append({column: name, "test_records": records[name] if published else None, "accuracy": share})
    return pd.DataFrame(rows, columns=[column, "test_records", "accuracy"])


def score(model: ServedModel, tests: Sequence[Record], answers: Answers, people: Sequence[int]) -> Scores:
    """Accuracy of the served model and of each part alone.

    Args:
        tests: (n,) private test records; answers: of the model to their images, in the same order.
        people: (clusters,) how many subjects tuned each cluster, in the router's order.
    """
    truth = [test.label for test in tests]
    overall = {
        name: accuracy(getattr(answers, name), answers.labels, truth) if there else None
        for name, there in (
            ("served", True),
            ("clusters_soft", bool(model.clusters)),
            ("clusters_hard", bool(model.clusters)),
            ("global_head", model.head is not None),
        )
    }
    right = np.asarray(answers.labels)[answers.served.argmax(1)] == np.asarray(truth, dtype=object)
    least = model.params.evaluate.min_group
    subjects = [test.subject for test in tests]
    classes = _grouped(labels_of(tests), truth, right, subjects, least, "label")
    routed = [model.slots[index] if index >= 0 else "" for index in answers.nearest]
    clusters = _grouped(model.slots, routed, right, subjects, least, "slot")
    sizes = [(int(size), count) if count >= least else (None, None) for size, count in zip(model.sizes, people, strict=True)]
    clusters.insert(1, "records", [size for size, _ in sizes])
    clusters.insert(2, "subjects", [count for _, count in sizes])
    return Scores(overall, classes, clusters)


def deletion_cost(costs: NDArray[np.float64], records: int, clusters: int) -> dict[str, Any]:
    """What erasing one person costs, over all private people: see `blast.cost_per_subject`."""
    retrained, share = costs[:, 0], costs[:, 1] / records
    return {
        "clusters": clusters,
        "clusters_retrained_mean": round(float(retrained.mean()), 6),
        "clusters_retrained_max": int(retrained.max()),
        "records_share_mean": round(float(share.mean()), 6),
        "records_share_p95": round(float(np.quantile(share, 0.95)), 6),
        "records_share_max": round(float(share.max()), 6),
        "cut_changes_share": round(float(costs[:, 2].mean()), 6),
    }
