"""Who is in one state of a built project: the subject behind each pseudonym, and what erasing some of them would touch.

Made once a state and handed on: with a million records gathering takes seconds, and each subject or image costs an HMAC. Names
and digests never leave memory.
"""

from collections.abc import Collection, Sequence
from functools import cached_property

from lmeraser.erase.corrections import Change, Corrections, Known, changes_of
from lmeraser.erase.erased import SubjectKey, corrections_among, images_among
from lmeraser.erase.facts import digests_of, subjects_of
from lmeraser.erase.plan import Facts, Lost, Move, Placer, Plan, make_plan


class Roster:
    """Attributes: facts: of the state, as `gather_facts` read it; placer: asks the network where people come to stand who lose
    some of their records; each answer is kept."""

    def __init__(self, facts: Facts, key: SubjectKey, placer: Placer | None = None) -> None:
        self.facts = facts
        self.placer = placer
        self._key = key
        self._plans: dict[tuple[tuple[str, ...], tuple[str, ...], tuple[Change, ...]], Plan] = {}
        self._moves: dict[Lost, Move] = {}

    @cached_property
    def _subject_of(self) -> dict[str, str]:
        return {self._key.pseudonym(subject): subject for subject in subjects_of(self.facts)}

    @cached_property
    def _known(self) -> Known:
        labels: set[str] = set(self.facts.private["label"].unique().to_pylist())
        return Known(self._key, labels, self._subject_of.values())

    @cached_property
    def _digest_of(self) -> dict[str, str]:
        return {self._key.image_pseudonym(digest): digest for digest in digests_of(self.facts)}

    def named(self, pseudonyms: Collection[str]) -> list[str]:
        """The subjects behind pseudonyms, as far as a record of theirs is there, sorted."""
        return sorted(self._subject_of[pseudonym] for pseudonym in set(pseudonyms) & self._subject_of.keys())

    def images(self, pseudonyms: Collection[str]) -> list[str]:
        """The digests behind pseudonyms of images, as far as a record has them, sorted."""
        asked = images_among(pseudonyms)
        return sorted(self._digest_of[pseudonym] for pseudonym in asked & self._digest_of.keys()) if asked else []

    def changes(self, pseudonyms: Collection[str]) -> list[Change]:
        """The private records behind corrections, as far as they are there. Raises: RequestError if nothing has a right value."""
        corrections = Corrections(pseudonyms, self._key)
        return changes_of(corrections, self.facts.private, self._known) if corrections else []

    def old_ids(self, pseudonyms: Collection[str]) -> list[str]:
        """The ids of the private records behind corrections, as far as they are there with the old values, sorted."""
        return sorted(Corrections(pseudonyms, self._key).old_ids(self.facts.private)) if corrections_among(pseudonyms) else []

    def arriving(self, pseudonyms: Collection[str]) -> list[str]:
        """Keyed hashes of the rows that corrections leave with the right values: those that nothing else erases, sorted."""
        names, images = set(self.named(pseudonyms)), set(self.images(pseudonyms))
        staying = (new for old, new in self.changes(pseudonyms) if old.sha256 not in images and new.subject not in names)
        return sorted({self._key.row_pseudonym(new.sha256, new.label, new.subject) for new in staying})

    def plan(self, pseudonyms: Collection[str], include_public: bool) -> Plan:
        """As `make_plan` for the subjects, images and corrections behind pseudonyms; made once for the same ones."""
        names, images, changes = tuple(self.named(pseudonyms)), tuple(self.images(pseudonyms)), tuple(self.changes(pseudonyms))
        known = self._plans.get((names, images, changes))
        if known is None or (known.public_removed and not include_public):  # `make_plan` refuses the latter
            placer = self._place if self.placer else None
            known = make_plan(names, self.facts, include_public, images, placer, changes)
            self._plans[names, images, changes] = known
        return known

    def _place(self, lost: Sequence[Lost]) -> Sequence[Move]:
        asked = [ids for ids in lost if ids not in self._moves]
        if asked and self.placer:
            self._moves |= zip(asked, self.placer(asked), strict=True)
        return [self._moves[ids] for ids in lost]
