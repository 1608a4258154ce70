"""What a step is given, and what it gives back. Steps change nothing in what they are given; the coordinator stores the rest."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from flows.project import Project
from flows.run.waves import Workers
from lmeraser.erase.batches import BatchRecord
from lmeraser.erase.ledger import Claim
from lmeraser.erase.requests import Request

Seconds = dict[str, float]


@dataclass(frozen=True)
class Work:
    """A batch in the hands of one process.

    Attributes:
        batch: with what the steps before found. ids: the requests that the step is for: all of the batch, or one to be certified.
        workers: who tunes its clusters; None: this machine's own processes.
    """

    project: Project
    claim: Claim
    batch: BatchRecord
    ids: tuple[str, ...]
    workers: Workers | None = None

    @property
    def requests(self) -> list[Request]:
        """As the ledger has them now."""
        return [self.project.ledger.get(request_id) for request_id in self.ids]

    def keep(self, batch: BatchRecord) -> "Work":
        """Store in the middle of a step what a later try must know: before what cannot be undone, or before an error."""
        self.project.ledger.save_batch(batch, self.claim)
        return replace(self, batch=batch)


@dataclass(frozen=True)
class Done:
    """Attributes: batch: with what the step found; seconds: by part of the step."""

    batch: BatchRecord
    seconds: Seconds = field(default_factory=dict)


Step = Callable[[Work], Done]
