"""What the ledger tells of the time that erasures took, where there is a ledger: a review runs without one as well."""

import os
from collections.abc import Iterable

from lmeraser.core.layout import LEDGER_VARIABLE, Layout


def has_ledger(layout: Layout) -> bool:
    """Whether there is one already: asking must not make one."""
    return LEDGER_VARIABLE in os.environ or layout.ledger.exists()


def seconds_of(layout: Layout, request_ids: Iterable[str]) -> float | None:
    """Seconds of the steps of some requests, those of a batch once; None if no ledger knows all of them."""
    wanted = list(request_ids)
    if not wanted or not has_ledger(layout):
        return None
    from flows.project import Project

    ledger = Project(layout).ledger
    requests = [request for identity in wanted if (request := ledger.find(identity)) is not None]
    ledger.close()
    if len(requests) < len(wanted):
        return None
    batches: dict[str, float] = {}
    for request in requests:
        name = request.batch_id or request.request_id
        batches[name] = max(batches.get(name, 0.0), request.seconds)
    return sum(batches.values())
