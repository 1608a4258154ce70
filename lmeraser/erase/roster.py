"""Who is in one state of a built project: the subject behind each pseudonym, and what erasing some of them would touch.

Made once a state and handed on: with a million records gathering takes seconds, and each subject or image costs an HMAC. Names
and digests never leave memory.
"""

from collections.abc import Collection, Sequence
from functools import cached_property

from lmeraser.erase.erased import SubjectKey, images_among
from lmeraser.erase.facts import digests_of, subjects_of
from lmeraser.erase.plan import Facts, Lost, Move, Placer, Plan, make_plan


class Roster:
    """Attributes: facts: of the state, as `gather_facts` read it; placer: asks the network where people come to stand who lose
    some of their records; each answer is kept."""

    def __init__(self, facts: Facts, key: SubjectKey, placer: Placer | None = None) -> None:
        self.facts = facts
        self.placer = placer
        self._key = key
        self._plans: dict[tuple[tuple[str, ...], tuple[str, ...]], Plan] = {}
        self._moves: dict[Lost, Move] = {}

    @cached_property
    def _subject_of(self) -> dict[str, str]:
        return {self._key.pseudonym(subject): subject for subject in subjects_of(self.facts)}

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

    def plan(self, pseudonyms: Collection[str], include_public: bool) -> Plan:
        """As `make_plan` for the subjects and images behind pseudonyms; made once for the same ones."""
        names, images = tuple(self.named(pseudonyms)), tuple(self.images(pseudonyms))
        known = self._plans.get((names, images))
        if known is None or (known.public_removed and not include_public):  # `make_plan` refuses the latter
            known = make_plan(names, self.facts, include_public, images, self._place if self.placer else None)
            self._plans[names, images] = known
        return known

    def _place(self, lost: Sequence[Lost]) -> Sequence[Move]:
        asked = [ids for ids in lost if ids not in self._moves]
        if asked and self.placer:
            self._moves |= zip(asked, self.placer(asked), strict=True)
        return [self._moves[ids] for ids in lost]
