"""What erasing some subjects would touch: a pure function of facts that are gathered without torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lmeraser.core.clustering import Member, leaf_counts, rule_of
from lmeraser.core.digest import part_of
from lmeraser.core.errors import BlockedError, RequestError
from lmeraser.core.hierarchy import Hierarchy
from lmeraser.core.params import Params
from lmeraser.core.records import TRAIN, Record
from lmeraser.core.units import unit_of
from lmeraser.erase.blast import Blast, blast_of


@dataclass(frozen=True)
class Facts:
    """The state of a built project.

    Attributes:
        public, private: all records without their images; placements: where each private training record stands.
        used_slots: slots that hold a cluster now.
    """

    params: Params
    public: Sequence[Record]
    private: Sequence[Record]
    placements: Sequence[Member]
    tree: Hierarchy
    used_slots: Sequence[str]


@dataclass(frozen=True)
class Plan:
    """What will happen. Holds counts, slots and parts; no subject, no record.

    Attributes:
        slots_retrained, slots_emptied: slots. With `exact` false (the paper's clustering) an upper bound.
        records_retrained, records_total: private training records afterwards.
        cut_changes: the cut through the hierarchy moves, so clusters merge.
        labels_lost: labels that nobody retained has in training; shared_images: images that a retained record also holds.
        rebuild: public records go too, so the backbone and everything after it is made anew.
    """

    subjects: int
    records_removed: int
    train_removed: int
    test_removed: int
    public_removed: int
    parts: list[str]
    slots_retrained: list[str]
    slots_emptied: list[str]
    clusters_total: int
    records_retrained: int
    records_total: int
    cut_changes: bool
    labels_lost: int
    shared_images: int
    rebuild: bool
    exact: bool
    source: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "Plan":
        return cls(**raw)


def source_note(params: Params) -> str:
    """What happens to the place that the records came from, for plans and certificates."""
    if params.source.erase:
        return "erased: the rows and files of the source go too"
    return "outside the project's control: the records stay in the source, which you must clear yourself"


def _check(chosen: set[str], facts: Facts, include_public: bool) -> None:
    public = [record for record in facts.public if record.subject in chosen]
    if public and not include_public:
        total = len({*facts.used_slots})
        raise BlockedError(
            f"{len({record.subject for record in public})} of the subjects have {len(public)} public records: the frozen "
            f"backbone learnt from them, so it and all {total} clusters must be rebuilt; add --include-public to accept that"
        )
    for name, records in (("private", facts.private), ("public", facts.public)):  # public last: its units are counted below
        left = [record for record in records if record.split == TRAIN and record.subject not in chosen]
        if not left:
            raise RequestError(
                f"nothing would be left to learn from: these subjects hold all {name} training records; "
                "to erase everyone, withdraw the model and delete the project's folder, cache and remotes"
            )
        if len({record.label for record in left}) < 2:
            raise RequestError(
                f"the {name} training records left would have one class, and nothing can be learnt from one; "
                "add data first, or withdraw the model"
            )
    units = {unit_of(record, facts.params.cluster.unit) for record in left}
    if public and len(units) < facts.params.skeleton.leaves:
        raise RequestError(
            f"{len(units)} public units would be left for skeleton.leaves {facts.params.skeleton.leaves}; "
            "lower leaves, run `dvc repro`, retry"
        )


def make_plan(subjects: Sequence[str], facts: Facts, include_public: bool) -> Plan:
    """Decide what changes when the subjects are erased.

    Raises: BlockedError if they have public records and that was not accepted; RequestError if nothing would be left.
    """
    chosen = set(subjects)
    _check(chosen, facts, include_public)
    params = facts.params
    gone = [record for record in facts.private if record.subject in chosen]
    public = [record for record in facts.public if record.subject in chosen]
    train = {record.id for record in gone if record.split == TRAIN}
    kept = [record for record in facts.private if record.subject not in chosen]
    kept_images = {record.sha256 for record in [*kept, *facts.public] if record.subject not in chosen}
    labels_left = {record.label for record in kept if record.split == TRAIN}
    units = {member.unit for member in facts.placements if member.id not in train}
    if params.cluster.method == "anchors" and len(units) < params.cluster.k:
        raise RequestError(
            f"{len(units)} private units would be left for cluster.k {params.cluster.k} clusters; lower k, run `dvc repro`, retry"
        )
    exact = params.cluster.method != "anchors" and not public
    if exact:
        blast = _blast(train, facts)
    else:
        # Only a replay can tell: every cluster may change.
        left = len(facts.placements) - len(train)
        blast = Blast(list(facts.used_slots), [], left, left, len(facts.used_slots), True)
    return Plan(
        subjects=len(chosen),
        records_removed=len(gone) + len(public),
        train_removed=len(train),
        test_removed=len(gone) - len(train),
        public_removed=len(public),
        parts=sorted({params.parts[part_of(record.subject, len(params.parts))] for record in gone}),
        slots_retrained=blast.retrained if train or public else [],
        slots_emptied=blast.emptied,
        clusters_total=blast.clusters_after,
        records_retrained=blast.records_retrained if train or public else 0,
        records_total=blast.records_after,
        cut_changes=blast.merged,
        labels_lost=len({record.label for record in gone if record.split == TRAIN} - labels_left),
        shared_images=len({record.sha256 for record in [*gone, *public]} & kept_images),
        rebuild=bool(public),
        exact=exact,
        source=source_note(params),
    )


def _blast(train: set[str], facts: Facts) -> Blast:
    counts = leaf_counts(facts.tree, [member.leaf for member in facts.placements])
    removed = leaf_counts(facts.tree, [member.leaf for member in facts.placements if member.id in train])
    return blast_of(facts.tree, rule_of(facts.params.cluster), facts.params.slots, counts, removed)
