"""Requests that nobody sent and that somebody, or a rule, may accept: consent withdrawn, rows gone upstream, records past their
time. Part of the ledger.

A proposal is a row like any request, in the state `proposed`: nobody is left out for it, no coordinator claims it. Its id is made
of what it is about, so that the same cause proposes it once. `ready_at` is when it is accepted by itself; of none, never. That
is stored with it: a change of the param changes nothing for what waits. Whoever reads the ledger to carry something out settles
the proposals first, as it does the holds.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from lmeraser.core.errors import RequestError
from lmeraser.erase.erased import images_among
from lmeraser.erase.ledger_base import Transactions
from lmeraser.erase.ledger_pauses import APPROVED_BY
from lmeraser.erase.ledger_schema import requests, transaction, words
from lmeraser.erase.states import PROPOSED

AT_ONCE = 500  # proposals of a transaction: other writers wait for it


@dataclass(frozen=True)
class Proposal:
    """Attributes: why: one of `WHY`; due_at: ISO 8601, UTC, seconds; ready_at: seconds since 1970, None: a person must accept it;
    include_public: whoever accepts it accepts that too."""

    request_id: str
    pseudonyms: tuple[str, ...]
    why: str
    due_at: str
    ready_at: float | None
    include_public: bool = False


WITHDRAWN, VANISHED, EXPIRED, RETURNED = "consent withdrawn", "gone from the source", "expired", "erased and in the source again"
WHY = (WITHDRAWN, VANISHED, EXPIRED, RETURNED)


class Proposals(Transactions):
    """Every public method is one transaction, `propose` one for `AT_ONCE` proposals."""

    def propose(self, proposals: Iterable[Proposal]) -> list[str]:
        """Store those that are not there yet; returns their ids. After a crash the same ones again store the rest."""
        waiting, stored = list(proposals), list[str]()
        for start in range(0, len(waiting), AT_ONCE):
            some = {proposal.request_id: proposal for proposal in waiting[start : start + AT_ONCE]}
            with transaction(self._engine) as connection:
                asked = sa.select(requests.c.request_id).where(requests.c.request_id.in_(list(some)))
                there = set(connection.execute(asked).scalars())
                fresh = [proposal for identity, proposal in some.items() if identity not in there]
                if fresh:
                    connection.execute(requests.insert(), [self._columns(proposal) for proposal in fresh])
                    self._append_all(connection, PROPOSED, [(proposal.request_id, _told(proposal)) for proposal in fresh])
            stored += [proposal.request_id for proposal in fresh]
        return stored

    def accept_proposals(self, ids: Sequence[str], by: str) -> None:
        """Let a person accept proposals: all of them, or none. Raises: RequestError if one is no proposal (any more)."""
        with transaction(self._engine) as connection:
            rows = [self._known(connection, request_id) for request_id in ids]
            for row in rows:
                if row.state != PROPOSED:
                    raise RequestError(f"request {row.request_id} is {row.state}; only a proposed one can be accepted")
            for row in rows:
                self._accept(connection, row, "a person")
                said = {"request_id": row.request_id, "at": self._now(), "kind": APPROVED_BY, "text": by}
                connection.execute(words.insert().values(**said))

    def settle_proposals(self) -> list[str]:
        """Accept those whose time is over; returns their ids."""
        with transaction(self._engine) as connection:
            over = requests.c.state == PROPOSED, requests.c.ready_at <= self._clock()
            rows = list(connection.execute(sa.select(requests).where(*over).order_by(requests.c.number)))
            for row in rows:
                self._accept(connection, row, "its days are over")
            return [row.request_id for row in rows]

    def leave_to_person(self) -> int:
        """Let no proposal that waits be accepted by itself; returns how many there were."""
        with transaction(self._engine) as connection:
            waits = requests.c.state == PROPOSED, requests.c.ready_at.is_not(None)
            left = int(connection.execute(requests.update().where(*waits).values(ready_at=None)).rowcount)
            if left:
                self._append(connection, None, "proposals left to a person", {"proposals": left})
            return left

    def _columns(self, proposal: Proposal) -> dict[str, Any]:
        return {
            "request_id": proposal.request_id,
            "received_at": self._now(),
            "due_at": proposal.due_at,
            "state": PROPOSED,
            "reached": "received",
            "pseudonyms": json.dumps(sorted(proposal.pseudonyms), separators=(",", ":")),
            "include_public": proposal.include_public,
            "ready_at": proposal.ready_at,
        }

    def _accept(self, connection: sa.Connection, row: Any, by: str) -> None:
        self._set(connection, [row.request_id], state="received", ready_at=None)
        self._append(connection, row.request_id, "received", {"proposed": True, "accepted": by})


def _told(proposal: Proposal) -> dict[str, Any]:
    images = len(images_among(proposal.pseudonyms))
    return {"why": proposal.why, "subjects": len(proposal.pseudonyms) - images, **({"images": images} if images else {})}
