"""Histories of requests on a fake project in which the process is killed again and again, and what must be true at their end."""

import functools
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builders import Row, contents, png
from fake_pipeline import FakePipeline, everybody
from kills import killing

from lmeraser.core.digest import sha256
from lmeraser.core.errors import ProjectError, RequestError
from lmeraser.data.records import PRIVATE, TRAIN, read_records, record_id
from lmeraser.erase.erased import ErasedList
from lmeraser.erase.states import CERTIFIED, REJECTED
from lmeraser.pipeline.locks import read_files, read_outs
from lmeraser.prove.certificate import read_chain, read_head
from lmeraser.prove.keys import load_public
from lmeraser.serve.quarantine import read_quarantine

Act = Callable[[FakePipeline], Any]
Asked = dict[str, tuple[str, ...]]  # the people of each request, by its id
LEFT_OUT = ("quarantined", "removed", "retrained")  # states in which the served model leaves them out
LONGEST = 80  # writes after which a process that goes on after a kill is killed again, at most


@dataclass(frozen=True)
class Step:
    """What a process does. Attributes: again: a killed one is repeated at once, as a client repeats what nobody acknowledged."""

    name: str
    act: Act
    again: bool = True


@dataclass
class World:
    """A built project to take copies of, and projects built without some of its people.

    Attributes: changes: of params; kills: of all histories; killed: those of the last one.
    """

    folder: Path
    changes: dict[str, Any]
    remote: bool = True
    kills: int = 0
    killed: list[str] = field(default_factory=list)
    _writes: dict[frozenset[tuple[str, int]], int] = field(default_factory=dict)
    template: FakePipeline = field(init=False)

    def __post_init__(self) -> None:
        self.template = FakePipeline.build(self.folder / "template", remote=self.remote, **self.changes)
        self.without = functools.cache(self._without)

    def fresh(self) -> FakePipeline:
        """A copy, always at the same place."""
        shutil.rmtree(self.folder / "copy", ignore_errors=True)
        return self.template.copy(self.folder / "copy")

    def _without(self, people: frozenset[str]) -> FakePipeline:
        """A project that never had these people."""
        rows = [row.named(index) for index, row in enumerate(everybody())]
        kept = [row for row in rows if row.subject not in people]
        folder = self.folder / f"without-{sha256(repr(sorted(people)).encode())[:8]}"
        return FakePipeline.build(folder, kept, self.remote, **self.changes)

    # Histories

    def writes(self, steps: Sequence[Step]) -> int:
        """How many writes a history of these kinds of steps has that nobody kills, about."""
        shape = frozenset(Counter(step.name.rpartition(" ")[0] for step in steps).items())
        if shape not in self._writes:
            self._writes[shape] = self._counted(steps)
        return self._writes[shape]

    def _counted(self, steps: Sequence[Step]) -> int:
        pipeline = self.fresh()
        with killing(pipeline.root.parent) as calm:
            for step in steps:
                step.act(pipeline)
        return calm.writes

    def run(self, steps: Sequence[Step], asked: Asked, first: int, more: int, dice: random.Random) -> FakePipeline:
        """Take a history's steps; the first kill comes before write `first` of all of them, then `more` kills wherever they fall.

        The last step is repeated until it ends; it must be `resume`. Raises: AssertionError for what is not true after a kill.
        """
        before: int | None = first
        pipeline, left = self.fresh(), more
        self.killed = []
        for step in [*steps, steps[-1]]:
            while True:
                with killing(pipeline.root.parent, before) as kill:
                    step.act(pipeline)
                if not kill.dead:
                    before = before - kill.writes if before else None
                    break
                self.kills += 1
                self.killed.append(f"{step.name}: {kill.where}")
                wrong = list(self.early_falsehoods(pipeline, asked))
                assert wrong == [], (wrong, self.killed)
                before = round(LONGEST ** dice.random()) if left > 0 else None
                left -= 1
                if not (step.again or dice.random() < 0.5):
                    break
        return pipeline

    def early_falsehoods(self, pipeline: FakePipeline, asked: Asked) -> Iterator[str]:
        """What must be true whenever a process is gone: who is accepted is out of what is served, who is certified is nowhere."""
        served = served_ids(pipeline)
        certified: set[str] = set()
        for request in pipeline.requests():
            if request.is_open and request.reached in LEFT_OUT and served & training_ids(asked[request.request_id]):
                yield f"a request is {request.state}, and what is served does not leave its people out"
            if list(pipeline.layout.certificates.glob(f"*{request.request_id}.json")):
                certified |= set(asked[request.request_id])
        if certified:
            yield from _of_terms(self, pipeline, frozenset(certified))


def submit(request_id: str, *people: str, solved: bool = False, public: bool = False) -> Step:
    def act(pipeline: FakePipeline) -> None:
        with suppress(ProjectError):  # nobody can tell yet whether it is valid: it is in the ledger, and looked at again
            pipeline.submit(*people, request_id=request_id, include_public=public, solved=solved)

    return Step(f"submit{' public' if public else ''} {request_id[:4]}", act)


def cancel(request_id: str) -> Step:
    def act(pipeline: FakePipeline) -> None:
        if pipeline.request(request_id).state != REJECTED:
            try:
                pipeline.cancel(request_id)
            except RequestError:  # it was begun: then it is carried out
                assert pipeline.request(request_id).state != REJECTED

    return Step(f"cancel {request_id[:4]}", act)


def sweep() -> Step:
    return Step("sweep", lambda pipeline: pipeline.sweep(), again=False)


def resume() -> Step:
    return Step("resume", lambda pipeline: pipeline.resume())


# What must be true in the end


def falsehoods(world: World, pipeline: FakePipeline, asked: Asked) -> Iterator[str]:
    """What is not as it must be. Args: asked: the people of each request, by its id."""
    requests = {request.request_id: request for request in pipeline.requests()}
    if requests.keys() != asked.keys():
        yield f"{len(requests)} requests are known, {len(asked)} were sent"
    if odd := {request.state for request in requests.values()} - {CERTIFIED, REJECTED}:
        yield f"requests are left {sorted(odd)}"
    erased = frozenset(
        person for identity, request in requests.items() if request.state == CERTIFIED for person in asked[identity]
    )
    yield from _of_artifacts(world, pipeline, erased)
    yield from _of_stores(world, pipeline, erased)
    yield from _of_evidence(pipeline, [identity for identity, request in requests.items() if request.state == CERTIFIED], erased)
    if read_quarantine(pipeline.layout) is not None or pipeline.layout.quarantine_copies.exists():
        yield "the quarantine is not empty"


def _of_artifacts(world: World, pipeline: FakePipeline, erased: frozenset[str]) -> Iterator[str]:
    other = world.without(erased)
    for folder in ("artifacts", "metrics"):
        here, there = contents(pipeline.root / folder), contents(other.root / folder)
        drafts = {name for name in here if ".writing-" in name and folder == "metrics"}  # numbers alone
        if differing := sorted(name for name in {*here, *there} - drafts if here.get(name) != there.get(name)):
            yield f"{differing} are not those of a project that never had the people"
    recorded = read_outs(pipeline.layout.lock)
    if recorded != read_outs(other.layout.lock) or recorded != read_files(pipeline.root, recorded):
        yield "the lock does not tell what is there"
    if stale := pipeline.status():
        yield f"{sorted(stale)} are stale"


def _of_stores(world: World, pipeline: FakePipeline, erased: frozenset[str]) -> Iterator[str]:
    other = world.without(erased)
    cached = set(contents(pipeline.root / ".dvc" / "cache" / "files"))
    clean = set(contents(other.root / ".dvc" / "cache" / "files"))
    if erased and cached != clean:
        yield f"the cache holds {len(cached - clean)} objects too many and lacks {len(clean - cached)}"
    if erased and not set(contents(pipeline.remote / "files")) <= clean:
        yield "the remote holds objects that only the people's data can make"
    yield from _of_terms(world, pipeline, erased)


def _of_terms(world: World, pipeline: FakePipeline, erased: frozenset[str]) -> Iterator[str]:
    kept_source = () if world.changes.get("source", {}).get("erase") else ("project/people/",)
    terms = search_terms_of(erased)
    for name, content in contents(pipeline.root.parent).items():
        if not name.startswith(kept_source) and (residue := [term for term in terms if term in content]):
            yield f"{name} holds {len(residue)} terms of the people"


@functools.cache
def search_terms_of(people: frozenset[str]) -> tuple[bytes, ...]:
    """Names, and the ids, digests and bytes of images of the people's records."""
    terms = {person.encode() for person in people}
    for row in everybody():
        if row.subject in people:
            image = png(row.seed)
            terms |= {image, sha256(image).encode()}
            terms.add(id_of(row).encode())
    return tuple(sorted(terms))


def id_of(row: Row) -> str:
    return record_id(sha256(png(row.seed)), row.subject, row.label, row.visibility, row.split)


def served_ids(pipeline: FakePipeline) -> set[str]:
    """Ids of the records that what is served now was made of."""
    quarantine = read_quarantine(pipeline.layout)
    layout = quarantine.layout(pipeline.layout) if quarantine else pipeline.layout
    left_out = set(json.loads((layout.root / "without.json").read_bytes())) if quarantine else set()
    return {record.id for part in sorted(layout.private.glob("*.parquet")) for record in read_records(part)} - left_out


@functools.cache
def training_ids(people: tuple[str, ...]) -> frozenset[str]:
    """Ids of the people's private training records."""
    rows = (row for row in everybody() if row.subject in people and (row.visibility, row.split) == (PRIVATE, TRAIN))
    return frozenset(map(id_of, rows))


def _of_evidence(pipeline: FakePipeline, certified: Sequence[str], erased: frozenset[str]) -> Iterator[str]:
    layout = pipeline.layout
    chain = read_chain(layout.certificates, load_public(layout.public_keys)) if certified else []
    if sorted(certificate.request_id for certificate in chain) != sorted(certified):
        yield f"{len(chain)} certificates for {len(certified)} requests"
    if chain and read_head(layout.certificates) != chain[-1].head:
        yield "HEAD does not name the last certificate"
    with pipeline.process() as project:
        project.ledger.verify_chain()
        for identity in certified:
            kinds = [event.kind for event in project.ledger.events(identity)]
            if kinds.count(CERTIFIED) != 1 or kinds.count("received") != 1:
                yield f"a request was received or certified more than once: {kinds}"
        pseudonyms = {project.subject_key().pseudonym(person) for person in erased}
    if ErasedList.read(layout.erased).pseudonyms != pseudonyms:
        yield "the list does not name those who were erased"
    if odd := [path.name for path in layout.private_state.iterdir() if path.name.endswith((".locks", ".needles", ".draft"))]:
        yield f"{odd} are left of a finished batch"


def state_of(pipeline: FakePipeline, request_id: str) -> str:
    return pipeline.request(request_id).state


def is_served(pipeline: FakePipeline, person: str) -> bool:
    """Whether a cluster that answers was tuned on the person."""
    return bool(served_ids(pipeline) & training_ids((person,)))
