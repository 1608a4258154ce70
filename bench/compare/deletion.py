"""What a deletion costs a peer, and whether an update is, byte for byte, a rebuild.

A group is named by its records, not by its number: the exclusive or of one random 64-bit number a record. A group of the
retained records whose name was there before keeps its part; the others are trained again.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.compare.peers import Part, Peer, Rows
from bench.lab import pipeline as pipe
from lmeraser.core.digest import sha256

FEW = 1000  # records on which a peer of one group is trained twice


@dataclass(frozen=True)
class Division:
    """Some retained records in a peer's g groups of s slices each; a slice's records include those of the slices before.

    Attributes: group: (n,) of each record, -1 for those that are not retained; slices: (n,) of each record; number: (g,) as the
        peer calls the groups; keys: (g, s) uint64; records: (g, s) how many.
    """

    group: Rows
    slices: Rows
    number: Rows
    keys: NDArray[np.uint64]
    records: NDArray[np.int64]

    def chains(self) -> dict[int, list[Rows]]:
        """The rows of each group, slice by slice."""
        inside = {int(number): np.flatnonzero(self.group == number) for number in self.number}
        return {
            number: [rows[self.slices[rows] <= last] for last in range(self.keys.shape[1])] for number, rows in inside.items()
        }


def divide(peer: Peer, kept: NDArray[np.bool_] | None = None) -> Division:
    """Divide the retained records; all of them if nothing is said."""
    kept = np.ones(len(peer.ground.ids), dtype=bool) if kept is None else kept
    group, slices = peer.partition(kept), peer.slice_of
    number, place = np.unique(group[kept], return_inverse=True)
    keys = np.zeros((len(number), peer.slices), dtype=np.uint64)
    np.bitwise_xor.at(keys, (place, slices[kept]), peer.ground.keys[kept])
    records = np.zeros(keys.shape, dtype=np.int64)
    np.add.at(records, (place, slices[kept]), 1)
    return Division(group, slices, number, np.bitwise_xor.accumulate(keys, axis=1), records.cumsum(1))


def build(peer: Peer, chains: Sequence[list[Rows]]) -> tuple[list[Part], float]:
    """Train whole groups side by side; their parts, and the processor seconds of all of them."""

    def work(chain: list[Rows]) -> tuple[Part, float]:
        start = time.process_time()
        part: Part = {}
        for place, rows in enumerate(chain):
            if len(rows) and (place == 0 or len(rows) > len(chain[place - 1])):
                part = peer.train(rows, part or None)
        return part, time.process_time() - start

    made = pipe.side_by_side(work, chains)
    return [part for part, _ in made], sum(seconds for _, seconds in made)


def cost(peer: Peer, before: Division, after: Division) -> float:
    """Records times epochs that are trained again."""
    again = ~np.isin(after.keys, before.keys)
    # A slice without records of its own trains nothing.
    own = np.diff(after.records, axis=1, prepend=0) > 0
    return float((after.records * (again & own)).sum()) * peer.epochs


def sample_costs(peer: Peer, before: Division, sizes: Sequence[int], batches: int, seed: int) -> dict[str, dict[str, float]]:
    """Records x epochs of random deletions of so many subjects at once, by size: mean, 95th percentile, worst, how many.

    Args: before: the division of all records.
    """
    subjects = peer.ground.subjects
    people = int(subjects.max()) + 1
    generator = np.random.default_rng(seed)
    summaries = {}
    for size in sizes:
        if size >= people:
            continue
        times = min(peer.replays, people) if size == 1 else min(peer.replays, batches)
        drawn = []
        firsts = generator.permutation(people)[:times]
        for turn in range(times):
            leaving = firsts[turn : turn + 1] if size == 1 else generator.permutation(people)[:size]
            drawn.append(cost(peer, before, divide(peer, ~np.isin(subjects, leaving))))
        costs = np.array(drawn)
        summaries[str(size)] = {
            "mean": float(costs.mean()),
            "p95": float(np.quantile(costs, 0.95)),
            "max": float(costs.max()),
            "drawn": times,
        }
    return summaries


def digest(part: Part) -> str:
    return sha256(b"".join(name.encode() + part[name].tobytes() for name in sorted(part)))


def rebuild_check(
    peer: Peer, old: Division, parts: dict[int, Part], people: int, groups: int, seed: int
) -> dict[str, int | bool]:
    """Erase some people by the peer's own deletion, then train some groups of the retained records anew and compare bytes.

    Args: old: the division of all records; parts: by group of it; groups: how many to compare, those that the deletion left alone
        among them.
    """
    subjects = peer.ground.subjects
    generator = np.random.default_rng(seed)
    kept = ~np.isin(subjects, generator.permutation(int(subjects.max()) + 1)[:people])
    new = divide(peer, kept)
    known = {int(key): parts[int(number)] for key, number in zip(old.keys[:, -1], old.number, strict=True)}
    chains = new.chains()
    if len(new.number) == 1:  # a deletion is a build: only its reproducibility is left to check, on a few records
        few = [rows[:FEW] for rows in next(iter(chains.values()))]
        first, second = (digest(build(peer, [few])[0][0]) for _ in range(2))
        return {"equal": first == second, "compared": 1, "left_alone": 0}
    order = generator.permutation(len(new.number))
    untouched = [place for place in order if int(new.keys[place, -1]) in known][: max(1, groups // 2)]
    touched = [place for place in order if int(new.keys[place, -1]) not in known][: groups - len(untouched)]
    updated = dict(zip(touched, build(peer, [chains[int(new.number[place])] for place in touched])[0], strict=True))
    updated |= {place: known[int(new.keys[place, -1])] for place in untouched}
    again = sorted(updated, reverse=True)  # another order, other processes
    rebuilt = build(peer, [chains[int(new.number[place])] for place in again])[0]
    equal = all(digest(updated[place]) == digest(part) for place, part in zip(again, rebuilt, strict=True))
    return {"equal": equal, "compared": len(again), "left_alone": len(untouched)}
