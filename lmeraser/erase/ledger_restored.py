"""What a ledger that was restored from a backup is told of the requests that it lost. Part of the ledger."""

from collections.abc import Sequence

from lmeraser.core.errors import RequestError
from lmeraser.erase.ledger_base import Transactions, as_text
from lmeraser.erase.ledger_pauses import UNCLAIMED
from lmeraser.erase.ledger_schema import requests, transaction
from lmeraser.erase.requests import Restored
from lmeraser.erase.states import CERTIFIED

RESTORED = "restored from certificates"  # kind of an event


class Restoring(Transactions):
    """One transaction, as every public method of the ledger."""

    def restore(self, restored: Sequence[Restored], head: tuple[int, str]) -> list[str]:
        """Enter certified requests that an older ledger lacks, or has in another state; returns their ids.

        One event names them and the chain's head. Raises: RequestError if one is about other subjects here.
        """
        with transaction(self._engine) as connection:
            entered = []
            for told in restored:
                row, wanted = self._row(connection, told.request_id), as_text(sorted(told.pseudonyms))
                if row is not None and row.pseudonyms != wanted:
                    raise RequestError(f"request {told.request_id} is about other people here than in its certificate")
                if row is not None and row.state == CERTIFIED:
                    continue
                if row is None:
                    columns = {"received_at": told.received_at, "due_at": told.received_at, "state": CERTIFIED}
                    columns |= {"request_id": told.request_id, "reached": CERTIFIED, "pseudonyms": wanted}
                    connection.execute(requests.insert().values(**columns, include_public=told.include_public))
                done = {
                    "state": CERTIFIED,
                    "reached": CERTIFIED,
                    "certificate": told.certificate,
                    "problem": None,
                    "reason": None,
                }
                self._set(connection, [told.request_id], **done, **UNCLAIMED)
                entered.append(told.request_id)
            if entered:
                self._append(connection, None, RESTORED, {"requests": entered, "sequence": head[0], "sha256": head[1]})
            return entered
