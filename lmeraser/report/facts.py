"""All that the report page says, as typed values: gathered elsewhere, rendered by `lmeraser/report/page.py`.

No subject, pseudonym, path of a record, label or pixel of a record has a place here. Times are ISO 8601, UTC, seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lmeraser.erase.states import BLOCKED, CERTIFIED, FAILED, FINAL, PROPOSED

ABOUT = (PERSON, IMAGE, CORRECTION) = "person", "image", "correction"  # what a request may name
REPEATED = "a backup brought it back"  # the origin of a request of `lmeraser reapply`


@dataclass(frozen=True)
class RequestFacts:
    """A request. Attributes:
    effect_at: when the served model left the people out; certified_at: when its certificate was signed.
    words: why it is blocked, rejected or failed, redacted; late: past its due date, as of the page's time.
    records_removed, clusters_retrained, clusters_total: as planned or done, None where no plan is known.
    about: what it names, of `ABOUT`, several with "and"; origin: why it is there though nobody sent it, None if somebody did.
    """

    request_id: str
    state: str
    received_at: str
    due_at: str
    late: bool
    effect_at: str | None = None
    certified_at: str | None = None
    words: str | None = None
    records_removed: int | None = None
    clusters_retrained: int | None = None
    clusters_total: int | None = None
    about: str = PERSON
    origin: str | None = None

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    @property
    def standing(self) -> str:
        """`done`, `ended`, `open`, `waits` for a person, or `failed`: what a status is coloured by."""
        if self.is_final:
            return "done" if self.state == CERTIFIED else "ended"
        return {BLOCKED: "waits", PROPOSED: "waits", FAILED: "failed"}.get(self.state, "open")


@dataclass(frozen=True)
class CertificateFacts:
    """A file of certificates/. Attributes: name: its own, or its place where the name is none of ours; problem: why it does not
    verify, None if it does; nothing else of a file that does not verify is told."""

    name: str
    problem: str | None
    sequence: int | None = None
    request_id: str | None = None
    completed_at: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class ChainFacts:
    """Attributes: problem: why the certificates are no whole chain; head: number and digest of the last one; keys: ids, oldest
    first; limits: what the certificates say that they do not show; anchored: the ledger knows the same head."""

    problem: str | None = None
    head: tuple[int, str] | None = None
    keys: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    anchored: bool = False


@dataclass(frozen=True)
class LedgerFacts:
    """Attributes: events: how many; problem: why the chain of events is not whole; there: whether there is a ledger."""

    there: bool = False
    events: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class Branch:
    """A node of the hierarchy down to the cut. Attributes: parent: its place in the list, -1 for the root; slot: the cluster that
    it is, if it is one."""

    first_leaf: int
    last_leaf: int
    depth: int
    parent: int
    slot: str | None


@dataclass(frozen=True)
class ClusterFacts:
    """Attributes: records: None where its people are too few to tell; accuracy: where it answers, None likewise;
    erasures: batches that retrained it; left_out: by an open request."""

    slot: str
    records: int | None
    accuracy: float | None
    erasures: int
    left_out: bool


@dataclass(frozen=True)
class Prompt:
    """A cluster's frame as an image. Attributes: png: bytes; side: px; strongest: the largest change of a normalised pixel."""

    slot: str
    png: bytes
    side: int
    strongest: float


@dataclass(frozen=True)
class Accuracy:
    """The metrics of one state. Attributes: where: a commit's first digits, or `workspace`; linear: of the best yardstick."""

    at: str
    where: str
    served: float
    linear: float | None


@dataclass(frozen=True)
class Work:
    """What one batch of certified requests cost, or one certificate where there is no ledger.

    Attributes:
        at: when it was certified; people: of all its requests; clusters: in the model.
        retrained, total: private training records; seconds: of its steps, None where no ledger tells.
        rebuild: it began at the backbone.
    """

    at: str
    requests: int
    people: int
    clusters_retrained: int
    clusters: int
    retrained: int
    total: int
    seconds: float | None
    rebuild: bool


@dataclass(frozen=True)
class Audit:
    """An audit that the ledger remembers. Attributes: kind: `rebuild`, `stores` or `membership`; passed: None for no power;
    words: what it looked at and found, in counts; seconds: it took, where it was measured."""

    kind: str
    at: str
    passed: bool | None
    words: str
    seconds: float | None = None


@dataclass(frozen=True)
class ReportFacts:
    """Attributes: project: id; as_of: the time that everything is told as of, None before the first event; least: people of a
    group that is shown; unread: history whose metrics are damaged; problems: what could not be read, a line each."""

    project: str | None
    as_of: str | None
    least: int
    ledger: LedgerFacts = LedgerFacts()
    requests: tuple[RequestFacts, ...] = ()
    certificates: tuple[CertificateFacts, ...] = ()
    chain: ChainFacts = ChainFacts()
    history: tuple[Accuracy, ...] = ()
    unread: int = 0
    work: tuple[Work, ...] = ()
    audits: tuple[Audit, ...] = ()
    clusters: tuple[ClusterFacts, ...] = ()
    tree: tuple[Branch, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    prompts_withheld: int = 0
    metrics: Mapping[str, float | int | None] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_problem: str | None = None
    problems: tuple[str, ...] = ()
