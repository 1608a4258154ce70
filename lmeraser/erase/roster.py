"""Who is in one state of a built project: the subject behind each pseudonym, and what erasing some of them would touch.

Made once a state and handed on: with a million records gathering takes seconds, and each subject costs an HMAC. Names never leave
memory.
"""

from collections.abc import Collection
from functools import cached_property

from lmeraser.erase.erased import SubjectKey
from lmeraser.erase.facts import subjects_of
from lmeraser.erase.plan import Facts, Plan, make_plan


class Roster:
    """Attributes: facts: of the state, as `gather_facts` read it."""

    def __init__(self, facts: Facts, key: SubjectKey) -> None:
        self.facts = facts
        self._key = key
        self._plans: dict[tuple[str, ...], Plan] = {}

    @cached_property
    def _subject_of(self) -> dict[str, str]:
        return {self._key.pseudonym(subject): subject for subject in subjects_of(self.facts)}

    def named(self, pseudonyms: Collection[str]) -> list[str]:
        """The subjects behind pseudonyms, as far as a record of theirs is there, sorted."""
        return sorted(self._subject_of[pseudonym] for pseudonym in set(pseudonyms) & self._subject_of.keys())

    def plan(self, pseudonyms: Collection[str], include_public: bool) -> Plan:
        """As `make_plan` for the subjects behind pseudonyms; made once for the same people."""
        names = tuple(self.named(pseudonyms))
        known = self._plans.get(names)
        if known is None or (known.public_removed and not include_public):  # `make_plan` refuses the latter
            known = self._plans[names] = make_plan(names, self.facts, include_public)
        return known
