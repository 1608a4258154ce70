"""What erasing some subjects would touch: a pure function of facts that are gathered without torch.

Facts are columns (Arrow): with a million records a plan takes a second, where as many Python objects would take ten times that.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from lmeraser.clusters.assignment import leaf_counts, rule_of
from lmeraser.clusters.files import Member
from lmeraser.clusters.hierarchy import Hierarchy
from lmeraser.core.digest import part_of
from lmeraser.core.errors import BlockedError, ProjectError, RequestError
from lmeraser.core.params import Params
from lmeraser.data.columns import among, texts, whole_numbers
from lmeraser.data.records import FACTS, SCHEMA, TRAIN, Record
from lmeraser.erase.blast import Blast, blast_of, blast_of_moves
from lmeraser.erase.corrections import Change

PLACED = ("id", "unit", "leaf")
PLACED_SCHEMA = pa.schema([("id", pa.string()), ("unit", pa.string()), ("leaf", pa.int64())])


class Move(NamedTuple):
    """Where the training records of a unit stand that loses some of them: how many stay, their leaf now, and their leaf then."""

    records: int
    now: int
    then: int


OF_IMAGES = ("images", "owners", "owners_gone", "owners_moved")
OF_CORRECTIONS = ("corrected",)
Lost = tuple[str, ...]  # ids of the training records that one unit loses, sorted
Placer = Callable[[Sequence[Lost]], Sequence[Move]]  # asks the network: a unit's leaf is that of the mean of its records


@dataclass(frozen=True)
class Facts:
    """The state of a built project.

    Attributes:
        public, private: all records without their images, columns FACTS of `data/records.py`.
        placements: where each private training record stands, columns PLACED.
        used_slots: slots that hold a cluster now.
    """

    params: Params
    public: pa.Table
    private: pa.Table
    placements: pa.Table
    tree: Hierarchy
    used_slots: Sequence[str]

    @classmethod
    def of(
        cls,
        params: Params,
        public: Sequence[Record],
        private: Sequence[Record],
        placements: Sequence[Member],
        tree: Hierarchy,
        used_slots: Sequence[str],
    ) -> "Facts":
        """Facts from objects, where there are few."""
        schema = pa.schema([SCHEMA.field(name) for name in FACTS])
        open_, closed = (pa.Table.from_pylist([asdict(record) for record in records], schema) for records in (public, private))
        placed = pa.Table.from_pylist([{name: getattr(member, name) for name in PLACED} for member in placements], PLACED_SCHEMA)
        return cls(params, open_, closed, placed, tree, used_slots)


@dataclass(frozen=True)
class Plan:
    """What will happen. Holds counts, slots and parts; no subject, no record.

    Attributes:
        slots_retrained, slots_emptied: slots. With `exact` false (the paper's clustering) an upper bound.
        records_retrained, records_total: private training records afterwards.
        cut_changes: the cut through the hierarchy moves, so clusters merge.
        labels_lost: labels that nobody retained has in training; shared_images: images that a retained record also holds.
        rebuild: public records go too, so the backbone and everything after it is made anew.
        images: that were named; owners: people who were not named and lose a record; owners_gone: those without another one;
            owners_moved: those who come to another leaf.
        corrected: records that stay with another label or subject. As they are they go, so `records_removed` counts them too.
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
    images: int = 0
    owners: int = 0
    owners_gone: int = 0
    owners_moved: int = 0
    corrected: int = 0

    def to_json(self) -> dict[str, Any]:
        """What concerns single images, or corrections, is told only where there are any: a plan of people is what it was before
        there were."""
        left_out = (() if self.images else OF_IMAGES) + (() if self.corrected else OF_CORRECTIONS)
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "Plan":
        return cls(**raw)

    def as_replay(self, slots: list[str], parts: Sequence[str], records: int, rebuild: bool) -> "Plan":
        """What it came to where the project was changed on the way: the pipeline was replayed, and every cluster may be new.

        Args: slots: in use now; records: training records now; rebuild: what public records decide was made anew as well.
        """
        return replace(
            self,
            parts=sorted(parts),
            slots_retrained=slots,
            slots_emptied=[],
            clusters_total=len(slots),
            records_retrained=records,
            records_total=records,
            cut_changes=True,
            rebuild=rebuild or self.rebuild,
            exact=False,
        )


def source_note(params: Params, removed: bool = True, corrected: bool = False) -> str:
    """What happens to the place that the records came from, for plans and certificates.

    Args: removed, corrected: whether records go, and whether some stay with another value.
    """
    if params.source.erase:
        return "erased: the rows and files of the source go too"
    what = ["the records stay in the source, which you must clear yourself"] if removed or not corrected else []
    what += ["the source keeps the old values, which you must correct there yourself"] if corrected else []
    return f"outside the project's control: {'; '.join(what)}"


@dataclass(frozen=True)
class _Side:
    """The private or the public records, and which of them are erased. Attributes: erased, train: (n,) for each record."""

    records: pa.Table
    erased: pa.ChunkedArray
    train: pa.ChunkedArray

    @classmethod
    def of(cls, records: pa.Table, chosen: pa.Array, images: pa.Array, ids: Sequence[str] = ()) -> "_Side":
        """Args: ids: of records that go as they are, though nobody of them is erased."""
        erased = pc.is_in(records["subject"], value_set=chosen)
        for column, values in (("sha256", images), ("id", texts(ids))):
            if len(values):
                erased = pc.or_(erased, pc.is_in(records[column], value_set=values))
        return cls(records, erased, among(records["split"], [TRAIN]))

    @cached_property
    def leaving(self) -> pa.Table:
        """The few records that go."""
        return self.records.filter(self.erased)

    @cached_property
    def leaving_train(self) -> pa.Table:
        return self.leaving.filter(among(self.leaving["split"], [TRAIN]))

    @cached_property
    def labels_left(self) -> set[str]:
        """Labels of the training records that stay."""
        return set(self.records["label"].filter(pc.and_(self.train, pc.invert(self.erased))).unique().to_pylist())

    def units_left(self, unit: str) -> int:
        """How many subjects (or records) have training records that stay."""
        staying = self.records["id" if unit == "record" else "subject"].filter(pc.and_(self.train, pc.invert(self.erased)))
        return len(staying.unique())

    def people_left(self, people: set[str]) -> set[str]:
        """Those of the people of whom a record stays."""
        theirs = among(self.records["subject"], people)
        return set(self.records["subject"].filter(pc.and_(theirs, pc.invert(self.erased))).unique().to_pylist())

    def images_kept(self, images: pa.Array) -> set[str]:
        """Those of the images that a record which stays also holds."""
        kept = self.records["sha256"].filter(pc.and_(pc.is_in(self.records["sha256"], value_set=images), pc.invert(self.erased)))
        return set(kept.unique().to_pylist())


def _check(
    private: _Side, public: _Side, facts: Facts, include_public: bool, people_only: bool, came: Sequence[Record] = ()
) -> None:
    """Args: came: corrected training records as they will be."""
    if public.leaving.num_rows and not include_public:
        total = len({*facts.used_slots})
        people = len(public.leaving["subject"].unique())
        whose = f"{people} of the subjects have" if people_only else "what was named is in"
        raise BlockedError(
            f"{whose} {public.leaving.num_rows} public records: the frozen "
            f"backbone learnt from them, so it and all {total} clusters must be rebuilt; add --include-public to accept that"
        )
    for name, side in (("private", private), ("public", public)):
        labels = side.labels_left | ({record.label for record in came} if side is private else set())
        if not labels:
            raise RequestError(
                f"nothing would be left to learn from: {'these subjects hold' if people_only else 'that is'} all {name} training "
                "records; "
                "to erase everyone, withdraw the model and delete the project's folder, cache and remotes"
            )
        if len(labels) < 2:
            raise RequestError(
                f"the {name} training records left would have one class, and nothing can be learnt from one; "
                "add data first, or withdraw the model"
            )
    units = public.units_left(facts.params.cluster.unit)
    if public.leaving.num_rows and units < facts.params.skeleton.leaves:
        raise RequestError(
            f"{units} public units would be left for skeleton.leaves {facts.params.skeleton.leaves}; "
            "lower leaves, run `dvc repro`, retry"
        )


@dataclass(frozen=True)
class _Corrected:
    """Records that stay with other values.

    Attributes: pairs: what is not erased anyway; came: as they will be, each once, without those that are there already.
    """

    pairs: Sequence[Change]
    came: Sequence[Record]

    @classmethod
    def of(cls, changes: Sequence[Change], private: _Side, chosen: pa.Array, images: pa.Array) -> "_Corrected":
        """Args: chosen, images: who and what is erased; a record that becomes an erased person's goes with them."""
        gone, people = set(images.to_pylist()), set(chosen.to_pylist())
        # A record is whose it is rightly: if it was wrongly an erased person's, it stays.
        stays = [pair for pair in changes if pair.old.sha256 not in gone]
        pairs = [pair for pair in stays if not people.issuperset((pair.old.subject, pair.new.subject))]
        fresh = {pair.new.id: pair.new for pair in pairs if pair.new.subject not in people}
        known = set(private.records["id"].filter(among(private.records["id"], fresh)).to_pylist())
        return cls(pairs, [record for identity, record in fresh.items() if identity not in known])

    @property
    def training(self) -> list[Record]:
        return [record for record in self.came if record.split == TRAIN]

    @property
    def old_training(self) -> list[str]:
        """Ids of the training records as they are."""
        return [pair.old.id for pair in self.pairs if pair.old.split == TRAIN]

    def stand(self, params: Params) -> bool:
        """Whether every training record stands afterwards where it stands now: only labels change, and no two become one."""
        training = [pair for pair in self.pairs if pair.old.split == TRAIN]
        by_hash = params.cluster.unit == "record" and params.cluster.method == "random"
        labels_alone = all(pair.old.subject == pair.new.subject for pair in training)
        return labels_alone and len(self.training) == len(training) and not (training and by_hash)


def make_plan(
    subjects: Sequence[str],
    facts: Facts,
    include_public: bool,
    images: Sequence[str] = (),
    placer: Placer | None = None,
    changes: Sequence[Change] = (),
) -> Plan:
    """Decide what changes when the subjects and the images are erased, and records corrected.

    Args: images: digests; every record that has one goes. placer: where people come to stand who lose some of their records;
        asked only if there are such people and the clusters go by what the records show. changes: private records that are
        corrected; a label moves nobody, and of a subject only a replay can tell who comes to stand where.
    Raises: BlockedError if they have public records and that was not accepted; RequestError if nothing would be left.
    """
    chosen, digests = texts(sorted(set(subjects))), texts(sorted(set(images)))
    private = _Side.of(facts.private, chosen, digests, [pair.old.id for pair in changes])
    public = _Side.of(facts.public, chosen, digests)
    corrected = _Corrected.of(changes, private, chosen, digests)
    _check(private, public, facts, include_public, not len(digests), corrected.training)
    params = facts.params
    leaving_private, leaving_public = private.leaving, public.leaving
    train = private.leaving_train
    moved = among(facts.placements["id"], corrected.old_training)
    leaves = pc.and_(pc.is_in(facts.placements["id"], value_set=train["id"].combine_chunks()), pc.invert(moved))
    if params.cluster.method == "anchors":
        units = len(facts.placements["unit"].filter(pc.invert(leaves)).unique())
        if units < params.cluster.k:
            raise RequestError(
                f"{units} private units would be left for cluster.k {params.cluster.k} clusters; lower k, run `dvc repro`, retry"
            )
    touched = bool(train.num_rows or leaving_public.num_rows)
    exact = params.cluster.method != "anchors" and not leaving_public.num_rows and corrected.stand(params)
    moves: Sequence[Move] = ()
    if exact:
        moves = _moves(leaves, facts, placer) if len(digests) else ()
        blast = _blast(leaves, facts, moves, moved)
    else:
        # Only a replay can tell: every cluster may change.
        left = facts.placements.num_rows - train.num_rows + len(corrected.training)
        blast = Blast(list(facts.used_slots), [], left, left, len(facts.used_slots), True)
    people: set[str] = {*leaving_private["subject"].unique().to_pylist(), *(record.subject for record in corrected.came)}
    leaving = pa.concat_tables([leaving_private, leaving_public])
    shown, owners = leaving["sha256"].unique(), set(leaving["subject"].unique().to_pylist()) - set(subjects)
    labels_left = private.labels_left | {record.label for record in corrected.training}
    return Plan(
        subjects=len(chosen),
        records_removed=leaving_private.num_rows + leaving_public.num_rows,
        train_removed=train.num_rows,
        test_removed=leaving_private.num_rows - train.num_rows,
        public_removed=leaving_public.num_rows,
        parts=sorted({params.parts[part_of(subject, len(params.parts))] for subject in people}),
        slots_retrained=blast.retrained if touched else [],
        slots_emptied=blast.emptied,
        clusters_total=blast.clusters_after,
        records_retrained=blast.records_retrained if touched and params.tune.kind == "sgd" else 0,
        records_total=blast.records_after,
        cut_changes=blast.merged,
        labels_lost=len(set(train["label"].unique().to_pylist()) - labels_left),
        shared_images=len(private.images_kept(shown) | public.images_kept(shown)),
        rebuild=bool(leaving_public.num_rows),
        exact=exact,
        source=source_note(params, bool(len(chosen) or len(digests)), bool(changes)),
        images=len(digests),
        owners=len(owners),
        owners_gone=len(owners - private.people_left(owners) - public.people_left(owners)),
        owners_moved=sum(move.now != move.then for move in moves),
        corrected=len(changes),
    )


def _moves(leaving: pa.ChunkedArray, facts: Facts, placer: Placer | None) -> Sequence[Move]:
    """Where those units come to stand that lose some of their training records. Args: leaving: (n,) of each placed record."""
    params = facts.params.cluster
    if params.unit == "record" or params.method == "random":  # a record stands alone; a hash of the name stays what it is
        return ()
    lost, staying = facts.placements.filter(leaving), facts.placements.filter(pc.invert(leaving))
    some = lost.filter(pc.is_in(lost["unit"], value_set=staying["unit"].unique()))
    units: dict[str, list[str]] = {}
    for record, unit in zip(some["id"].to_pylist(), some["unit"].to_pylist(), strict=True):
        units.setdefault(unit, []).append(record)
    if not units:
        return ()
    if placer is None:
        raise ProjectError("people lose some of their records, and nothing here can tell where the others come to stand")
    return placer([tuple(sorted(ids)) for _, ids in sorted(units.items())])


def _blast(leaving: pa.ChunkedArray, facts: Facts, moves: Sequence[Move], changed: pa.ChunkedArray) -> Blast:
    """Args: leaving, changed: (n,) whether a placed record goes, or is another one in its place."""
    tree, rule, leaf = facts.tree, rule_of(facts.params.cluster), facts.placements["leaf"]
    placed = (leaf, leaf.filter(leaving), leaf.filter(changed))
    counts, removed, arrive = (leaf_counts(tree, whole_numbers(column)) for column in placed)
    if not moves and not arrive.any():
        return blast_of(tree, rule, facts.params.slots, counts, removed)
    removed += arrive
    for move in moves:
        removed[move.now] += move.records
        arrive[move.then] += move.records
    return blast_of_moves(tree, rule, facts.params.slots, counts, removed, arrive)
