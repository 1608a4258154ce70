"""What the benches say a deletion costs a peer, and their check that an update is a rebuild."""

import itertools
import os
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.compare.deletion import cost, divide, rebuild_check, sample_costs
from bench.compare.peers import Ground, Part, Peer, Probabilities, Rows
from lmeraser.data.records import Record


class Sums(Peer):
    """Adds its records' numbers up: stable shards by the number, or clusters whose borders move with the mean."""

    def __init__(self, people: int, shards: int, slices: int = 1, moving: bool = False, honest: bool = True) -> None:
        records = [Record(f"{number:032x}", "", "a", f"s{number // 2}", "train") for number in range(2 * people)]
        train = SimpleNamespace(records=records, labels=["a"] * len(records))
        params = SimpleNamespace(tune=SimpleNamespace(epochs=3), cluster=SimpleNamespace(unit="subject"))
        nothing: Any = None
        ground: Any = Ground(cast("Any", params), cast("Any", SimpleNamespace(train=train)), *[nothing] * 5)
        super().__init__("sums", ground)
        self.shards, self.slices, self.moving, self.honest = shards, slices, moving, honest
        self.turns = itertools.count()

    def partition(self, kept: np.ndarray[Any, np.dtype[np.bool_]]) -> Rows:
        numbers = np.arange(len(kept))
        border = numbers[kept].mean() if self.moving else 0
        return np.where(kept, (numbers // 2 + (numbers > border)) % self.shards, -1)

    def train(self, rows: Rows, start: Part | None) -> Part:
        noise = 0 if self.honest else os.getpid() + next(self.turns)
        return {"sum": np.array([rows.sum() + noise])}

    def answer(self, groups: Sequence[tuple[int, Rows, Part]]) -> dict[str, Probabilities]:
        return {}


def by_hand(peer: Peer, kept: Any) -> float:
    """Records x epochs of every slice whose records, with those before it, were no slice's before."""
    old = {frozenset(rows.tolist()) for chain in divide(peer).chains().values() for rows in chain}
    total = 0
    for chain in divide(peer, kept).chains().values():
        seen: frozenset[int] = frozenset()
        for rows in chain:
            now = frozenset(rows.tolist())
            if now != seen and now not in old:
                total += len(now)
            seen = now
    return total * peer.epochs


@given(
    st.integers(3, 12).flatmap(
        lambda people: st.tuples(st.just(people), st.sets(st.integers(0, people - 1), max_size=people - 1))
    ),
    st.integers(1, 4),
    st.integers(1, 3),
    st.booleans(),
)
def test_a_deletion_costs_the_groups_that_it_changed(drawn: tuple[int, set[int]], shards: int, slices: int, moving: bool) -> None:
    people, leaving = drawn
    peer = Sums(people, shards, slices, moving)
    kept = ~np.isin(np.repeat(np.arange(people), 2), list(leaving))
    assert cost(peer, divide(peer), divide(peer, kept)) == by_hand(peer, kept)


def test_nobody_costs_nothing_and_one_person_of_one_group_costs_all_that_is_left() -> None:
    peer = Sums(10, 1)
    costs = sample_costs(peer, divide(peer), [1], 5, 0)["1"]
    assert costs == {"mean": 18 * 3, "p95": 18 * 3, "max": 18 * 3, "drawn": 10}


@pytest.mark.parametrize(("shards", "moving"), [(1, False), (4, False), (3, True)])
@pytest.mark.parametrize("honest", [True, False])
def test_a_part_that_is_no_function_of_its_records_is_found(shards: int, moving: bool, honest: bool) -> None:
    peer = Sums(12, shards, moving=moving, honest=honest)
    everybody = divide(peer)
    parts = {number: peer.train(chain[-1], None) for number, chain in everybody.chains().items()}
    assert rebuild_check(peer, everybody, parts, 2, 4, 0)["equal"] is honest
