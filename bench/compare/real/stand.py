"""What all peers of a comparison over a given backbone stand on: features, the skeleton of public records, and labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bench.compare.real.chosen import penalty_for
from bench.compare.real.data import People
from bench.compare.real.features import Store
from bench.lab import pipeline as pipe
from lmeraser.clusters.global_head import Rule
from lmeraser.clusters.quantisation import Integers
from lmeraser.clusters.skeleton import Skeleton, build_skeleton
from lmeraser.core.digest import number_from, part_of
from lmeraser.core.params import Params
from lmeraser.data.records import Record

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Side:
    """Some records (n) and their features. Attributes: features: (n, w) float32 as the backbone gives them."""

    records: list[Record]
    features: Rows

    @cached_property
    def labels(self) -> list[str]:
        return [record.label for record in self.records]

    @cached_property
    def people(self) -> list[str]:
        return [record.subject for record in self.records]


@dataclass(frozen=True)
class Stand:
    """Attributes: train, test: private; widths: of the backbone's depths, its own row last; images: stored, by SHA-256."""

    params: Params
    public: Side
    train: Side
    test: Side
    widths: tuple[int, ...]
    images: Mapping[str, bytes]

    @cached_property
    def skeleton(self) -> Skeleton:
        return build_skeleton(
            pipe.public_features(self.public.features, self.public.records, self.widths, self.params), self.params
        )

    @cached_property
    def rule(self) -> Rule:
        return pipe.rule_for(self.skeleton, self.params)

    def last(self, side: Side) -> Rows:
        """(n, last width) the network's own row, standardised."""
        return self.skeleton.standardise_last(side.features, self.widths[-1])

    def deep(self, side: Side) -> Rows:
        """(n, d) all depths, standardised, along the public axes where the params ask for them."""
        return self.skeleton.standardise(side.features)

    @cached_property
    def last_penalty(self) -> float:
        """Of a logistic regression on the last layer, chosen on public records."""
        return penalty_for(self.last(self.public), self.public.labels, self.public.people)

    @cached_property
    def deep_penalty(self) -> float:
        """Of a logistic regression on all depths, chosen on public records."""
        return penalty_for(self.deep(self.public), self.public.labels, self.public.people)

    @cached_property
    def quantised(self) -> Integers:
        """(n, d) whole numbers of the private training records."""
        return self.skeleton.quantise(self.train.features)

    @cached_property
    def test_quantised(self) -> Integers:
        return self.skeleton.quantise(self.test.features)

    @cached_property
    def summands(self) -> Integers:
        """(n, p) what the global head sums of the private training records."""
        return self.skeleton.summand(self.quantised, self.params.projection.levels)

    @cached_property
    def part(self) -> NDArray[np.int64]:
        """(n,) in which part of the private records each lies."""
        return np.array([part_of(person, len(self.params.parts)) for person in self.train.people], dtype=np.int64)

    @cached_property
    def rows_of(self) -> Mapping[str, NDArray[np.int64]]:
        """The training rows of each person, people in the order of a hash."""
        rows: dict[str, list[int]] = {}
        for row, person in enumerate(self.train.people):
            rows.setdefault(person, []).append(row)
        return {person: np.array(rows[person]) for person in sorted(rows, key=lambda name: number_from("leaves", name))}

    @property
    def own(self) -> float:
        """Training images of a person, on average."""
        return len(self.train.records) / len(self.rows_of)

    def leavers(self, count: int) -> Sequence[str]:
        """The first so many people by a hash."""
        return list(self.rows_of)[:count]


def stand_on(people: People, store: Store, widths: tuple[int, ...], params: Params) -> Stand:
    """Args: store: with every image of the people in it; widths: of the backbone's depths."""

    def side(records: list[Record]) -> Side:
        return Side(records, store.rows([record.sha256 for record in records]))

    return Stand(params, side(people.public), side(people.train), side(people.test), widths, people.images)
