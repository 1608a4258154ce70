"""Who may have to go without having asked here: a feed or a column says that consent was withdrawn, a person's rows are gone from
the source, a record is past its time, or somebody who is erased is in the source again. They are proposed, and in effect once a
person or a rule accepts them (`lmeraser/erase/ledger_proposals.py`).

    gather      read what tells of people: names and digests stay in memory
    compare     with the built state, the list of the erased, and what the ledger has: nobody is proposed twice for one cause
    store       a request a person, by pseudonym; the same feed twice stores nothing new
    accept      `received`, and from there the way of every request

Nothing here touches an artifact, and none of it waits for an erasure that is being carried out.
"""

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from flows.dvc import command as dvc
from flows.project import Project
from flows.requests import intake
from flows.requests.quarantine import whole_layout
from flows.requests.repeats import REPEATS, Repeats
from lmeraser.core.digest import sha256
from lmeraser.core.errors import ImageError
from lmeraser.core.progress import say
from lmeraser.data.records import record_id
from lmeraser.erase.erased import people_among
from lmeraser.erase.facts import digests_of, subjects_of
from lmeraser.erase.ledger_proposals import EXPIRED, RETURNED, VANISHED, WITHDRAWN, Proposal
from lmeraser.erase.plan import Facts
from lmeraser.erase.requests import Request
from lmeraser.erase.states import CERTIFIED, FINAL, PROPOSED
from lmeraser.pipeline.locks import digest_of_locks
from lmeraser.prove.statement import Check
from lmeraser.sources import COLUMNS, Source, open_source
from lmeraser.sources.feed import Feed, read_feed
from lmeraser.sources.saying import due_rows, says_withdrawn

if TYPE_CHECKING:
    import pandas as pd

AFTER_GRACE = "after-grace"


@dataclass
class Outcome:
    """What came of looking. Attributes:
    proposed: ids that are new. Counts of those that are not: waiting: a request or proposal about them is open; ended: what was
    proposed for this very cause before was dismissed or is done; erased: they are; unknown: no record of the built model has
    them; later: dated in the future; shared: expired, but somebody else's record that is not expired has the same image.
    left_to_person: params let proposals be accepted by themselves, and there are too many.
    """

    proposed: list[str] = field(default_factory=list)
    by_cause: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    ended: int = 0
    erased: int = 0
    unknown: int = 0
    later: int = 0
    shared: int = 0
    left_to_person: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Candidate:
    """Attributes: state: what makes another cause of the same one, as the state in which it is seen."""

    pseudonyms: tuple[str, ...]
    why: str
    day: date | None = None
    state: str = ""


class Proposer:
    """Compares what tells of people with what is there, and stores what is new. Personal data: for one command alone."""

    def __init__(self, project: Project) -> None:
        """Raises: ProjectError if nothing is built, or if the key is another one."""
        dvc.require_built(project.layout)
        self.project, self.key = project, project.ensure_subject_key()
        project.erased.check_key(self.key)
        self._erased = project.erased.pseudonyms
        self.facts: Facts = project.roster(whole_layout(project)).facts
        self.people = frozenset(subjects_of(self.facts))
        self._requests = {request.request_id: request for request in project.ledger.all()}
        self._covered = {name for request in self._requests.values() if request.state not in FINAL for name in request.pseudonyms}
        self._new: dict[str, Candidate] = {}
        self.outcome = Outcome()

    def today(self) -> date:
        return datetime.fromtimestamp(self.project.ledger.time(), UTC).date()

    # What tells of people

    def feed(self, name: str) -> None:
        """A file of withdrawn consent. Raises: BadInputError, and then nobody of it is proposed."""
        rows, today = Feed(), self.today()
        for subject, day in read_feed(name, rows):
            if day is not None and day > today:
                self.outcome.later += 1
            else:
                self._person(subject, WITHDRAWN, day)

    def column(self) -> None:
        """`consent.column` of the source. Raises: BadInputError with the first line that says neither."""
        name = self.project.params.consent.column
        if name is not None:
            source = open_source(self.project.params.source, self.project.layout.root)
            for subject in says_withdrawn(source, name):
                self._person(subject, WITHDRAWN)

    def vanished(self) -> None:
        """People of the built state who are not in the source any more."""
        table = open_source(self.project.params.source, self.project.layout.root).table()
        gone = self.people - set(table["subject"].unique())
        state = digest_of_locks(self.project.layout.root) if gone else ""
        for subject in sorted(gone):
            self._add(Candidate((self.key.pseudonym(subject),), VANISHED, state=state))

    def returned(self) -> None:
        """People who are erased and are in the source, where an erasure clears that."""
        if not self.project.params.source.erase or not people_among(self._erased):
            return
        table = open_source(self.project.params.source, self.project.layout.root).table()
        back = set(map(self.key.pseudonym, table["subject"].unique())) & self._erased
        times: dict[str, int] = dict.fromkeys(back, 0)
        for request in self._requests.values():
            if request.state == CERTIFIED:
                for name in back.intersection(request.pseudonyms):
                    times[name] += 1
        for name, before in sorted(times.items()):
            self._add(Candidate((name,), RETURNED, state=str(before)))

    def expired(self) -> None:
        """Records past `retention.column`: a person if all of theirs in the source are, else their images.

        Raises: BadInputError with the line of a date that is none, or of an image that cannot be read.
        """
        retention = self.project.params.retention
        if retention.column is None:
            return
        source = open_source(self.project.params.source, self.project.layout.root)
        table = source.column(retention.column)
        past = due_rows(source, table, self.today() - timedelta(days=retention.days))
        staying = set(table.loc[~past, "subject"])
        whole = set(table.loc[past, "subject"]) - staying
        ids, images = self._some_expired(source, table[past & table["subject"].isin(staying)])
        kept = self._kept_by_others(images, ids, whole)
        self.outcome.shared += len(set().union(*images.values()) & kept)
        for subject in sorted(whole):
            self._person(subject, EXPIRED)
        for _, digests in sorted(images.items()):
            if digests - kept:
                self._add(Candidate(tuple(sorted(map(self.key.image_pseudonym, digests - kept))), EXPIRED))

    def _some_expired(self, source: Source, rows: "pd.DataFrame") -> tuple[set[str], dict[str, set[str]]]:
        """The records of rows whose people have others that stay: their ids, and by subject their images. Each image is read.

        Raises: ImageError with the line.
        """
        there, ids, images = frozenset(digests_of(self.facts)), set[str](), dict[str, set[str]]()
        for line, path, label, subject, visibility, split in zip(
            *(rows[name].tolist() for name in ("line", *COLUMNS)), strict=True
        ):
            try:
                digest = sha256(source.image(path))
            except ImageError as error:
                raise ImageError(f"{source.name} {source.unit} {line}: {error}") from error
            if digest not in there and self.key.image_pseudonym(digest) not in self._erased:
                self.outcome.unknown += 1
                continue
            ids.add(record_id(digest, subject, label, visibility, split))
            images.setdefault(subject, set()).add(digest)
        return ids, images

    def _kept_by_others(self, images: dict[str, set[str]], ids: Collection[str], whole: Collection[str]) -> set[str]:
        """Those of the images that a record has which does not expire: an image goes whoever's it is.

        Args: ids: of records that expire; whole: people all of whose records do.
        """
        kept, asked = set[str](), pa.array(sorted(set().union(*images.values())), pa.string())
        for table in (self.facts.private, self.facts.public):
            held = table.filter(pc.is_in(table["sha256"], value_set=asked)).select(["id", "sha256", "subject"])
            for record in held.to_pylist():
                if record["id"] not in ids and record["subject"] not in whole:
                    kept.add(record["sha256"])
        return kept

    # What is new

    def _person(self, subject: str, why: str, day: date | None = None) -> None:
        if subject in self.people:
            self._add(Candidate((self.key.pseudonym(subject),), why, day))
        elif self._erased and self.key.pseudonym(subject) in self._erased:
            self.outcome.erased += 1
        else:
            self.outcome.unknown += 1

    def _add(self, candidate: Candidate) -> None:
        left = [name for name in candidate.pseudonyms if candidate.why == RETURNED or name not in self._erased]
        fresh = [name for name in left if name not in self._covered]
        if not fresh:
            self.outcome.waiting += bool(left)
            self.outcome.erased += not left
            return
        identity = self._identity(candidate, fresh)
        if identity in self._requests:
            self.outcome.ended += 1
            return
        self._covered.update(fresh)
        self._new[identity] = Candidate(tuple(fresh), candidate.why, candidate.day, candidate.state)

    def _identity(self, candidate: Candidate, pseudonyms: Sequence[str]) -> str:
        """One id for one cause, which tells nobody anything without the key."""
        cause = "\x1f".join(["proposal", candidate.why, str(candidate.day or ""), candidate.state, *sorted(pseudonyms)])
        return str(uuid.UUID(self.key.pseudonym(cause)[:32], version=4))

    def store(self) -> Outcome:
        """Store what is new. Returns what came of all."""
        ready_at = self._ready_at()
        due_days = timedelta(days=self.project.params.service.due_days)
        proposals, now = [], datetime.fromtimestamp(self.project.ledger.time(), UTC)
        for identity, candidate in self._new.items():
            # Whoever withdrew consent elsewhere asked on that day, not on the day on which the feed came.
            since = datetime.combine(candidate.day, time(), UTC) if candidate.day else now
            due = (min(since, now) + due_days).isoformat(timespec="seconds")
            returned = candidate.why == RETURNED
            if returned:
                self._note_repeats(identity, candidate)
            proposals.append(Proposal(identity, candidate.pseudonyms, candidate.why, due, ready_at, returned))
        self.outcome.proposed = self.project.ledger.propose(proposals)
        stored = set(self.outcome.proposed)
        for proposal in proposals:
            if proposal.request_id in stored:
                self.outcome.by_cause[proposal.why] = self.outcome.by_cause.get(proposal.why, 0) + 1
        return self.outcome

    def _ready_at(self) -> float | None:
        """When what is new is accepted by itself; None: never, because a person must, or because there are so many."""
        consent, ledger = self.project.params.consent, self.project.ledger
        if consent.accept != AFTER_GRACE or not self._new:
            return None
        alone = sum(request.state == PROPOSED and request.ready_at is not None for request in self._requests.values())
        if alone + len(self._new) > consent.most_share * len(self.people):
            self.outcome.left_to_person = True
            ledger.leave_to_person()
            return None
        return ledger.time() + consent.grace_days * 86_400

    def _note_repeats(self, identity: str, candidate: Candidate) -> None:
        before = [
            request.request_id
            for request in self._requests.values()
            if request.state == CERTIFIED and set(candidate.pseudonyms) & set(request.pseudonyms)
        ]
        repeats = Repeats(tuple(before), 0 if before else len(candidate.pseudonyms), 0, len(candidate.pseudonyms))
        if not self.project.ledger.events(identity, kinds=(REPEATS,)):
            self.project.ledger.note(identity, REPEATS, asdict(repeats))


def propose(project: Project, feed: str | None) -> Outcome:
    """Look at a feed; or, where there is none, at all else that params name. Raises: BadInputError, and nothing is stored."""
    proposer = Proposer(project)
    if feed is not None:
        proposer.feed(feed)
    else:
        proposer.column()
        proposer.expired()
        proposer.returned()
        if project.params.consent.vanished:
            proposer.vanished()
    return proposer.store()


def before_build(project: Project) -> Outcome | None:
    """Propose who would leave the model with a build because the source has them no more; None where params say not to.

    Afterwards nobody could tell that they were there: a build takes them out of the artifacts, and out of no store.
    """
    if not project.params.consent.vanished:
        return None
    proposer = Proposer(project)
    proposer.vanished()
    return proposer.store()


def say_before_build(project: Project) -> None:
    """As `before_build`, and say how many."""
    outcome = before_build(project)
    if outcome and outcome.proposed:
        say(
            f"{len(outcome.proposed)} people of the built model are not in the source any more: this build leaves them out, and "
            "their erasure from every store is proposed (`lmeraser status`)"
        )
    if outcome and outcome.left_to_person:
        say("they are so many (consent.most_share) that none is accepted by itself: is the source whole?")


def accept(project: Project, ids: Sequence[str], by: str, solved: bool = True) -> list[Request]:
    """Let a person accept proposals: they are received, and in effect at once where they are valid. All are proposals, or none
    is accepted.

    Args: solved: as of `intake.take_effect`.
    Raises: BadInputError; ProjectError if nobody can tell of one whether it is valid: it is received, and looked at again.
    """
    who = intake.approver(by)
    project.ledger.accept_proposals(ids, who)
    intake.accept_all(project, [project.ledger.get(request_id) for request_id in ids], solved)
    for request_id in ids:
        request = project.ledger.get(request_id)
        if intake.needs_approval(project, request):
            intake.approve(project, request_id, who, solved)
    return [project.ledger.get(request_id) for request_id in ids]


def proposal_checks(project: Project, request: Request) -> tuple[Check, ...]:
    """What the certificate of a request that nobody sent says of it."""
    cause = cause_of(project, request)
    return (Check("proposed because", cause),) if cause else ()


def cause_of(project: Project, request: Request) -> str | None:
    """Why a request was proposed; None for one that somebody sent."""
    noted: Iterable[Any] = project.ledger.events(request.request_id, kinds=(PROPOSED,))
    return next((str(event.data["why"]) for event in noted), None)
