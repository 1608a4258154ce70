"""What is measured of a peer and kept in bench/results/compare-DATA.json."""

from typing import NotRequired, TypedDict

from bench.compare.peers import Probabilities
from bench.lab.report import Provenance


class Costs(TypedDict):
    """Of one peer on one ground: seconds of processor, work in records x epochs, storage in bytes.

    `deletion` and `deletion_seconds` are by the number of subjects who leave at once: mean, p95, max.
    """

    groups: int
    largest: int
    passes: float
    storage: int
    fit_seconds: float
    fit_work: float
    deletion: dict[str, dict[str, float]]
    deletion_seconds: dict[str, dict[str, float]]
    rebuild: dict[str, int | bool]


class Measured(Costs):
    """`answers`: by part of the answer, (m, labels) probabilities of the test records and the labels."""

    answers: dict[str, tuple[Probabilities, list[str]]]


class Run(Costs):
    """What is kept: the answers, which are large, as accuracies."""

    seed: int
    peer: str
    params: str
    provenance: Provenance
    accuracy: dict[str, float | None]


class Counts(TypedDict):
    public: int
    train: int
    test: int
    people: int


class Contest(TypedDict):
    """Everything measured over one data set."""

    runs: list[Run]
    counts: NotRequired[Counts]
