"""Compare two states: what became worse and by how much, which clusters changed, and what that cost.

Tolerances are those of `review` in params.yaml. A number that the old state has and the new one lacks counts as broken; a group
that one of the two hides is not compared, and counted.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lmeraser.core.params import Review
from lmeraser.report.states import Group, Number, State

SERVED, LOG_LOSS = "accuracy.served", "log_loss"
TUNED, SUFFIX = "artifacts/tune/", ".safetensors"
PUBLIC = ("artifacts/pretrain/backbone.safetensors", "artifacts/skeleton/skeleton.safetensors")
PLACES = 6  # decimals that metrics have


@dataclass(frozen=True)
class Change:
    """A number in both states. Attributes: change: new minus old; None where one of them is no number."""

    old: Number
    new: Number

    @property
    def change(self) -> float | int | None:
        """As `dvc metrics diff` has it."""
        return None if self.old is None or self.new is None else self.new - self.old

    def to_json(self) -> dict[str, Any]:
        change = self.change
        return {"old": self.old, "new": self.new, "change": None if change is None else round(change, PLACES)}


@dataclass(frozen=True)
class Breach:
    """A tolerance that is broken. Attributes: kind: `metric`, `class` or `cluster`; allowed: the largest change for the worse."""

    kind: str
    name: str
    old: Number
    new: Number
    allowed: float


@dataclass(frozen=True)
class Groups:
    """What came of one table. Attributes: changes: of what both show; apart: groups that only one shows, or none."""

    changes: Mapping[str, Change]
    apart: int


@dataclass(frozen=True)
class Blast:
    """Which clusters changed. Attributes:
    known: whether both states have a lock; changed, emptied, added: slots; clusters: in the new state.
    records: training records of changed clusters, those whose size is not shown left out; unsized: how many these are.
    total: training records in the new state; rebuilt: what public records decide is another.
    """

    known: bool
    changed: tuple[str, ...]
    emptied: tuple[str, ...]
    added: tuple[str, ...]
    clusters: int
    records: int
    unsized: int
    total: int | None
    rebuilt: bool


@dataclass(frozen=True)
class Cost:
    """Attributes: requests: ids of requests certified in between; seconds: of their steps, None where no ledger tells."""

    requests: tuple[str, ...]
    seconds: float | None


@dataclass(frozen=True)
class Comparison:
    """Two states side by side."""

    old: str
    new: str
    metrics: Mapping[str, Change]
    classes: Groups
    clusters: Groups
    breaches: tuple[Breach, ...]
    blast: Blast
    cost: Cost

    @property
    def within(self) -> bool:
        return not self.breaches

    def to_json(self) -> dict[str, Any]:
        return {
            "old": self.old,
            "new": self.new,
            "within_tolerances": self.within,
            "breaches": [asdict(breach) for breach in self.breaches],
            "metrics": {name: change.to_json() for name, change in self.metrics.items()},
            "classes": {name: change.to_json() for name, change in self.classes.changes.items()},
            "classes_not_compared": self.classes.apart,
            "clusters": {name: change.to_json() for name, change in self.clusters.changes.items()},
            "clusters_not_compared": self.clusters.apart,
            "blast": asdict(self.blast),
            "cost": asdict(self.cost),
        }


def compare(old: State, new: State, allowed: Review, seconds: float | None = None) -> Comparison:
    """Args: seconds: that the steps of the erasures between the two took, where the ledger tells."""
    names = sorted(old.metrics.keys() | new.metrics.keys())
    metrics = {name: Change(old.metrics.get(name), new.metrics.get(name)) for name in names}
    classes = _groups(old.classes, new.classes, max(old.classes_hidden, new.classes_hidden))
    clusters = _groups(old.clusters, new.clusters, max(old.clusters_hidden, new.clusters_hidden))
    breaches = [
        *_overall(metrics, allowed),
        *_fallen("class", old.classes, new.classes, allowed.class_drop, allowed.least_wrong),
        *_fallen("cluster", old.clusters, new.clusters, allowed.cluster_drop, allowed.least_wrong),
    ]
    certified = tuple(new.certificates[number] for number in sorted(new.certificates.keys() - old.certificates.keys()))
    cost = Cost(certified, None if seconds is None else round(seconds, 3))
    return Comparison(old.name, new.name, metrics, classes, clusters, tuple(breaches), _blast(old, new), cost)


def _groups(old: Mapping[str, Group], new: Mapping[str, Group], hidden: int) -> Groups:
    both = sorted(old.keys() & new.keys())
    changes = {name: Change(old[name].accuracy, new[name].accuracy) for name in both}
    return Groups(changes, max(hidden, len(old.keys() ^ new.keys())))


def _overall(metrics: Mapping[str, Change], allowed: Review) -> list[Breach]:
    """The served accuracy must be there; a log-loss where the old state has one."""
    breaches = []
    for name, worse, limit in ((SERVED, -1, allowed.accuracy_drop), (LOG_LOSS, 1, allowed.log_loss_rise)):
        pair = metrics.get(name, Change(None, None))
        lost = pair.old is not None and pair.new is None
        if lost or (pair.change is not None and _beyond(worse * pair.change, limit)):
            breaches.append(Breach("metric", name, pair.old, pair.new, limit))
    return breaches


def _fallen(kind: str, old: Mapping[str, Group], new: Mapping[str, Group], limit: float, least_wrong: int) -> list[Breach]:
    """Groups that fell by more than the limit, unless so few answers turned wrong that chance alone may do it."""
    breaches = []
    for name in sorted(old.keys() & new.keys()):
        before, after = old[name], new[name]
        wrong = round((before.accuracy - after.accuracy) * after.test_records)
        if _beyond(before.accuracy - after.accuracy, limit) and wrong >= least_wrong:
            breaches.append(Breach(kind, name, before.accuracy, after.accuracy, limit))
    return breaches


def _beyond(worse: float, limit: float) -> bool:
    """Whether a change for the worse is more than is let pass, as decimals have it: 0.99 to 0.98 is 0.01."""
    return round(worse - limit, PLACES) > 0


def _blast(old: State, new: State) -> Blast:
    """By the digests that the locks record: a file that was made again with the same bytes did not change."""
    changed = sorted(slot for slot in new.sizes.keys() & old.sizes.keys() if _digest(old, slot) != _digest(new, slot))
    added, emptied = sorted(new.sizes.keys() - old.sizes.keys()), sorted(old.sizes.keys() - new.sizes.keys())
    retrained = [new.sizes[slot] for slot in (*changed, *added)]
    total = new.metrics.get("records.train")
    return Blast(
        bool(old.outs and new.outs),
        tuple(changed),
        tuple(emptied),
        tuple(added),
        len(new.sizes),
        sum(size for size in retrained if size is not None),
        sum(size is None for size in retrained),
        None if total is None else int(total),
        any(old.outs.get(path) != new.outs.get(path) for path in PUBLIC) if old.outs and new.outs else False,
    )


def _digest(state: State, slot: str) -> str | None:
    return state.outs.get(f"{TUNED}{slot}{SUFFIX}")
