"""purged: nothing of the people is left in the source (where params say so) or in any store, and a scan found none of it.

What goes is decided and deleted in `flows/purge`; here is the order, and what is kept for a crash in between.
"""

import time
from dataclasses import replace

from flows.dvc import command as dvc
from flows.project import Project
from flows.purge import plan as purging
from flows.requests import ground
from flows.requests.retrain import plan_of
from flows.requests.verify import verify
from lmeraser.core.errors import VerificationError
from lmeraser.erase.erased import SuppressionList
from lmeraser.erase.ledger import Claim
from lmeraser.erase.requests import Batch, Request
from lmeraser.pipeline.locks import read_outs
from lmeraser.prove.search_terms import SearchTerms
from lmeraser.sources import open_source


def purge(project: Project, batch: Batch, requests: list[Request], claim: Claim) -> dict[str, float]:
    """Clear the source if params say so, then every store, then scan all of them in a new process. Returns seconds by part.

    Raises: StepFailedError if a store cannot be cleared, VerificationError if something is left.
    """
    from flows.purge import scan

    layout, suppression_list = project.layout, SuppressionList.of(project.layout)
    watch = _Watch()
    ground.require_ground(project, batch)
    accepted = project.accepts_unknown or bool(batch.facts.get("unknown_accepted"))
    if project.params.source.erase and purging.read_journal(layout, batch.batch_id) is None:
        purging.refuse_unknown(purging.unknown_in_remotes(layout), accepted)  # before the source is cleared
    batch.facts["source"] = clear_source(project, batch, requests, claim)
    if "source_rows" in batch.facts:  # split ran again on the shorter source: what it gave is checked like any other state
        batch.facts["checks"] = verify(project, batch, requests)
    project.ledger.save_batch(batch, claim)
    watch.lap("source")
    journal, search_terms = purging.read_journal(layout, batch.batch_id), scan.kept_search_terms(layout, batch.batch_id)
    if journal is None:
        planned = purging.plan(layout, suppression_list.is_erased)
        # Read before they go: a later try, after a crash or after traces were found, looks for all of it again.
        purging.refuse_unknown(planned.unknown, accepted)
        batch.facts["unknown_accepted"] = accepted
        found_now = scan.search_terms_for(layout, planned, suppression_list.is_erased)
        search_terms = found_now.with_words_of(search_terms or SearchTerms())
        scan.keep_search_terms(layout, batch.batch_id, search_terms)
        journal = planned.journal
        purging.write_journal(layout, batch.batch_id, journal)
    watch.lap("plan")
    deleted = batch.facts.setdefault("deleted", {})
    for store in purging.carry_out(layout, journal):
        deleted[store["store"]] = deleted.get(store["store"], 0) + store["deleted"]
    project.ledger.save_batch(batch, claim)
    project.ledger.scrub()
    watch.lap("delete")
    wanted = search_terms or SearchTerms(frozenset(journal["objects"]), frozenset(journal["run_entries"]))
    found = scan.scan_stores(layout, wanted, ground.everybody(requests))
    watch.lap("scan")
    if not found["clean"]:
        purging.retire_journal(layout, batch.batch_id)
        raise VerificationError(f"traces are left after the purge {scan.left(found)}; see `lmeraser audit --stores`")
    unknown = journal.get("unknown", {})
    batch.facts["stores"] = [
        {"store": name, "deleted": deleted.get(name, 0), "residue": 0, "unknown": unknown.get(name, 0)}
        for name in sorted({*deleted, *(one["store"] for one in found["stores"])})
    ]
    batch.facts["scan"] = scan.checks(found, search_terms is not None, unknown)
    project.ledger.save_batch(batch, claim)
    return watch.laps


def clear_source(project: Project, batch: Batch, requests: list[Request], claim: Claim | None) -> str:
    """Delete the subjects' rows and files from the source if params say so; returns what happened, in words."""
    if not project.params.source.erase:
        return plan_of(batch).source
    if "source_rows" not in batch.facts:  # else rows are gone already, and what DVC says of the source is our own doing
        ground.require_own_changes(dvc.status(project.layout))
    source = open_source(project.params.source, project.layout.root)
    table = source.table()
    key, wanted = project.key(), ground.everybody(requests)
    gone = table[table["subject"].map({one: key.pseudonym(one) for one in table["subject"].unique()}).isin(wanted)]
    rows = max(len(gone), int(batch.facts.get("source_rows", 0)))  # after a crash the rows may be gone already
    batch.facts["source_rows"] = rows
    project.ledger.save_batch(replace(batch), claim)
    made = read_outs(project.layout.lock)
    source.drop(lambda subject: key.pseudonym(subject) in wanted)
    # `split` alone reads the shorter source. Its outs are the same, unless somebody brought other records meanwhile.
    dvc.run(project.layout, "repro", "--quiet", "--single-item", "split")
    if read_outs(project.layout.lock) != made:
        raise VerificationError("the source has other records than those that were verified; `lmeraser resume` verifies again")
    return f"erased: {rows} rows and their files"


def forget_search_terms(project: Project, batch: Batch) -> None:
    """Drop the clear names that the scan looked for: it found none of them."""
    from flows.purge.scan import drop_search_terms

    drop_search_terms(project.layout, batch.batch_id)


class _Watch:
    """Seconds of the parts of a step."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = now - self._last
        self._last = now
