"""A request that repeats erasures: a restored backup brought people back who were erased before.

Nobody knows their names any more, so it names pseudonyms. Its first event says which requests it repeats; that is in the ledger
before the request is, so that no request for people on the list is ever taken for one that has nothing to do.
"""

import uuid
from collections.abc import Collection
from dataclasses import asdict, dataclass

from flows.project import Project
from lmeraser.erase.requests import Request
from lmeraser.prove.statement import Check

REPEATS = "repeats"  # kind of the event
A_LINE = 12  # request ids in a line of a certificate, which has at most 500 characters


@dataclass(frozen=True)
class Repeats:
    """Attributes: requests: ids of the requests whose erasures are repeated; unnamed: people of whom no request is known.
    records, source: people who were back in the records of the model, and in the source that an erasure clears.
    """

    requests: tuple[str, ...]
    unnamed: int
    records: int
    source: int


def receive_again(project: Project, pseudonyms: Collection[str], repeats: Repeats) -> Request:
    """Commit a new request for people who are back. Public records were accepted with the request that is repeated."""
    identity = str(uuid.uuid4())
    project.ledger.note(identity, REPEATS, asdict(repeats))
    request, _ = project.ledger.receive(identity, pseudonyms, True, project.params.service.due_days)
    return request


def repeats_of(project: Project, request_id: str) -> Repeats | None:
    """What a request repeats; None for one that somebody sent."""
    noted = [event.data for event in project.ledger.events(request_id) if event.kind == REPEATS]
    return Repeats(**noted[0] | {"requests": tuple(noted[0]["requests"])}) if noted else None


def repeats_checks(repeats: Repeats | None) -> tuple[Check, ...]:
    """What the certificate of a request says of what it repeats."""
    if repeats is None:
        return ()
    starts = range(0, len(repeats.requests), A_LINE)
    lines = [" ".join(repeats.requests[start : start + A_LINE]) for start in starts]
    if repeats.unnamed:
        lines.append(f"none that is known any more, of {repeats.unnamed} people")
    back = f"{repeats.records} people in records of the model, {repeats.source} in the source"
    return (*(Check("repeats the erasures of requests", line) for line in lines), Check("a backup had brought back", back))
