"""What a comparison measures and keeps: the types of bench/results/compare-DATA.json."""

from typing import NotRequired, TypedDict

from bench.compare.peers import Probabilities
from bench.lab.report import Provenance

Answers = dict[str, tuple[Probabilities, list[str]]]  # by part of an answer: (m, k) probabilities of k known labels


class Rebuild(TypedDict):
    """Whether a deletion gave the bytes of a rebuild; in how many groups, and how many of them it had left alone."""

    equal: bool
    compared: int
    left_alone: int


class Costs(TypedDict):
    """What one peer costs on one ground. Work is records x epochs; seconds are of a processor."""

    groups: int
    largest: int  # records of the largest group
    passes: float  # through the backbone for one answer
    storage: int  # bytes beside the backbone
    fit_seconds: float
    fit_work: float
    deletion: dict[str, dict[str, float]]  # by number of subjects: mean, p95, max and how many were drawn
    deletion_seconds: dict[str, dict[str, float]]
    rebuild: Rebuild


class Run(Costs):
    """One peer on one seed."""

    seed: int
    peer: str
    params: str  # digest, see `contest.made_by`
    provenance: Provenance
    accuracy: dict[str, float]  # by part of an answer


class Counts(TypedDict):
    """Records of the ground, and the people of its private training records."""

    public: int
    train: int
    test: int
    people: int


class Results(TypedDict):
    """All runs over one data set."""

    runs: list[Run]
    counts: NotRequired[Counts]  # once something was measured
