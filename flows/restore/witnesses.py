"""Everybody who is known to be erased. After a restore each witness alone may be too old: so all of them are asked."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from flows import git
from flows.project import Project
from flows.requests import ground
from flows.restore.chain import Chain
from lmeraser.core.errors import ProjectError
from lmeraser.erase.erased import CORRECTED, CORRECTION, IMAGE, PSEUDONYM, ErasedList, SubjectKey
from lmeraser.erase.states import reached

LISTED, REMEMBERED, HISTORY, LEDGER, CERTIFICATES = "list", "memory", "git history", "ledger", "certificates"


@dataclass(frozen=True)
class Witnesses:
    """Attributes: people: pseudonyms by who tells of them; requests: ids of the requests that erased each of them, sorted;
    foreign: versions of the list in git that another key made, in which nobody can be recognised."""

    people: Mapping[str, frozenset[str]]
    requests: Mapping[str, tuple[str, ...]]
    foreign: int = 0

    @property
    def everybody(self) -> frozenset[str]:
        return frozenset().union(*self.people.values())

    def counts(self) -> dict[str, int]:
        """How many people each of them tells of."""
        return {name: len(people) for name, people in self.people.items()}


def ask_witnesses(project: Project, chain: Chain, key: SubjectKey | None) -> Witnesses:
    """Changes nothing. Args: key: None while there is none. Raises: ProjectError if a list is damaged or of another key."""
    layout = project.layout
    begun = [request for request in project.ledger.all() if reached(request.reached, "removed")]
    listed = _branch(project)
    for name, shown in (("data/erased.json", listed), (".lmeraser/erased.json", ErasedList.remembered(layout))):
        if key is not None and shown.pseudonyms and shown.key_id != key.id:
            raise ProjectError(
                f"the subject key is {key.id}, but {name} was made with {shown.key_id}; restore the key and the lists that "
                "belong together"
            )
    history, foreign = _history(project, key)
    requests: dict[str, set[str]] = {}
    for kept in chain.kept:
        for pseudonym in kept.pseudonyms:
            requests.setdefault(pseudonym, set()).add(kept.certificate.request_id)
    for request in begun:
        for pseudonym in request.pseudonyms:
            requests.setdefault(pseudonym, set()).add(request.request_id)
    people = {
        LISTED: listed.pseudonyms,
        REMEMBERED: ErasedList.remembered(layout).pseudonyms,
        HISTORY: history,
        LEDGER: frozenset(ground.everybody(begun)),
        CERTIFICATES: frozenset(pseudonym for kept in chain.kept for pseudonym in kept.pseudonyms),
    }
    return Witnesses(people, {pseudonym: tuple(sorted(ids)) for pseudonym, ids in requests.items()}, foreign)


def _branch(project: Project) -> ErasedList:
    """The checked out list; nobody where a restore left none: it is written again."""
    path = project.layout.erased
    return ErasedList.read(path) if path.exists() else ErasedList(None, frozenset())


def _history(project: Project, key: SubjectKey | None) -> tuple[frozenset[str], int]:
    """Everybody on any version of the list that git knows, and how many versions are of another key.

    A version that is damaged tells of nobody: what is checked out is read strictly, what is history cannot be mended.
    """
    layout, people, foreign = project.layout, set[str](), 0
    for _, data in git.versions_of(layout.root, layout.erased.relative_to(layout.root).as_posix()):
        try:
            raw = json.loads(data)
            subjects = [text for text in raw["subjects"] if PSEUDONYM.fullmatch(text)]
            subjects += [IMAGE + text for text in raw.get("images", []) if PSEUDONYM.fullmatch(text)]
            subjects += [CORRECTED + text for text in raw.get("corrections", []) if CORRECTION.fullmatch(text)]
            made_with = raw["key_id"]
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if subjects and (key is None or made_with != key.id):
            foreign += 1
        else:
            people.update(subjects)
    return frozenset(people), foreign
