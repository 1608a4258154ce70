"""A batch as the ledger keeps it: requests that share one retraining, their plan, and what each step found for later ones.

In the ledger it is three JSON objects, `plan`, `before` and `facts`. What a step has not set yet is not in `facts`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lmeraser.erase.plan import Plan

Pairs = tuple[tuple[str, str], ...]  # what was checked, and what was found


@dataclass(frozen=True)
class Ground:
    """What evidence stands on. Attributes: locks: SHA-256 of all locks together; erased: of the list of erased people in git."""

    locks: str
    erased: str


@dataclass(frozen=True)
class StoreCounts:
    """Objects of one store: that were deleted, that a scan still found, and that stay though nobody knows what they hold."""

    store: str
    deleted: int
    residue: int
    unknown: int = 0


@dataclass(frozen=True)
class BatchRecord:
    """Requests that share one retraining. Frozen: a step returns a new one.

    Attributes:
        batch_id, opened_at: the ledger sets them. plan: of all requests together. before: the locks' outs when it was formed.
        plans: what each request alone touches, by its id.
        holding: the files of records in which its people were found when it was formed; None for a batch of an older version.
        arriving: keyed hashes of the rows that its corrections leave with the right values.
        ground: what the last step left; None for a batch of an older version.
        unknown_accepted: objects may stay of which nobody can tell what they were made of.
        moved: somebody changed the project on the way, so more may change than was planned.
        mixed: what was retrained is of another environment than the rest; unplanned: something changed that no plan names.
        replayed: what the plan came to where the project was changed on the way.
        served: SHA-256 of each served file when it was checked, by its path; checks: what `verify` found.
        absence: proofs that its people are not among the retained ones, as `lmeraser/prove/absence.py` writes them; empty until
            it was checked, and for a batch of an older version.
        source: what happened to the source, in words; source_rows: rows that go, None until it is begun to be cleared.
        deleted: objects deleted so far, by store. stores, scan: what the purge deleted, and what the scan found.
    """

    plan: Plan
    before: Mapping[str, str]
    plans: Mapping[str, Plan] = field(default_factory=dict)
    holding: tuple[str, ...] | None = None
    arriving: tuple[str, ...] = ()
    ground: Ground | None = None
    unknown_accepted: bool = False
    moved: bool = False
    mixed: bool = False
    unplanned: bool = False
    replayed: Plan | None = None
    served: Mapping[str, str] = field(default_factory=dict)
    checks: Pairs = ()
    absence: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    source_rows: int | None = None
    deleted: Mapping[str, int] = field(default_factory=dict)
    stores: tuple[StoreCounts, ...] = ()
    scan: Pairs = ()
    batch_id: str = ""
    opened_at: str = ""

    @property
    def outcome(self) -> Plan:
        """What the batch does: as planned, or as a replay of the pipeline where somebody changed the project on the way."""
        return self.replayed or self.plan

    def to_json(self) -> dict[str, dict[str, Any]]:
        """The columns `plan`, `before` and `facts` of the ledger."""
        facts: dict[str, Any] = {"plans": {request_id: plan.to_json() for request_id, plan in self.plans.items()}}
        facts["unknown_accepted"] = self.unknown_accepted
        facts |= {name: True for name in ("moved", "mixed", "unplanned") if getattr(self, name)}
        if self.holding is not None:
            facts["holding"] = list(self.holding)
        if self.arriving:
            facts["arriving"] = list(self.arriving)
        if self.ground:
            facts["ground"] = asdict(self.ground)
        if self.replayed:
            facts["replayed"] = self.replayed.to_json()
        if self.source is not None:
            facts["source"] = self.source
        if self.source_rows is not None:
            facts["source_rows"] = self.source_rows
        facts |= {name: dict(counts) for name in ("served", "deleted") if (counts := getattr(self, name))}
        facts |= {name: [list(pair) for pair in pairs] for name in ("checks", "scan") if (pairs := getattr(self, name))}
        if self.absence:
            facts["absence"] = dict(self.absence)
        if self.stores:
            facts["stores"] = [asdict(counts) for counts in self.stores]
        return {"plan": self.plan.to_json(), "before": dict(self.before), "facts": facts}

    @classmethod
    def from_json(cls, plan: Any, before: Any, facts: Any, batch_id: str = "", opened_at: str = "") -> "BatchRecord":
        """Of this version or an older one. Raises: AttributeError, KeyError, TypeError, ValueError if it is none."""
        ground, replayed, holding = facts.get("ground"), facts.get("replayed"), facts.get("holding")
        return cls(
            plan=Plan.from_json(plan),
            before=dict(before),
            plans={str(request_id): Plan.from_json(alone) for request_id, alone in facts["plans"].items()},
            holding=None if holding is None else tuple(map(str, holding)),
            arriving=tuple(map(str, facts.get("arriving", ()))),
            ground=Ground(**ground) if ground else None,
            unknown_accepted=bool(facts.get("unknown_accepted", False)),
            moved=bool(facts.get("moved", False)),
            mixed=bool(facts.get("mixed", False)),
            unplanned=bool(facts.get("unplanned", False)),
            replayed=Plan.from_json(replayed) if replayed else None,
            served=dict(facts.get("served", {})),
            checks=_pairs(facts.get("checks", [])),
            absence=dict(facts.get("absence", {})),
            source=facts.get("source"),
            source_rows=facts.get("source_rows"),
            deleted=dict(facts.get("deleted", {})),
            stores=tuple(StoreCounts(**counts) for counts in facts.get("stores", [])),
            scan=_pairs(facts.get("scan", [])),
            batch_id=batch_id,
            opened_at=opened_at,
        )


def _pairs(listed: Any) -> Pairs:
    """Pairs of texts; an older version kept one pair of the scan alone."""
    rows = [listed] if listed and isinstance(listed[0], str) else listed
    return tuple((str(check), str(result)) for check, result in rows)
