"""purged: nothing of the people is left in the source (where params say so) or in any store, and a scan found none of it.

What goes is decided and deleted in `flows/purge`; here is the order, and what is kept for a crash in between.
"""

import time
from dataclasses import replace

from flows.dvc import command as dvc
from flows.purge import step as purging
from flows.purge.known import NOTHING
from flows.requests import ground
from flows.requests.verify import verify
from flows.requests.work import Done, Work
from lmeraser.core.errors import VerificationError
from lmeraser.erase.batches import StoreCounts
from lmeraser.erase.corrections import Corrections
from lmeraser.erase.erased import ErasedImages, SuppressionList, corrections_among, images_among
from lmeraser.erase.requests import RECTIFIED
from lmeraser.erase.taint import NOTHING_CONDEMNED, Condemned
from lmeraser.pipeline.locks import read_outs
from lmeraser.prove.search_terms import SearchTerms
from lmeraser.sources import ErasableSource, open_erasable_source


def purge(work: Work) -> Done:
    """Clear the source if params say so, then every store, then scan all of them in a new process. Returns seconds by part.

    Raises: StepFailedError if a store cannot be cleared, VerificationError if something is left.
    """
    project, batch_id = work.project, work.batch.batch_id
    layout, watch = project.layout, _Watch()
    ground.require_ground(project, work.batch)
    accepted = project.accepts_unknown or work.batch.unknown_accepted
    if project.params.source.erase and purging.read_journal(layout, batch_id) is None:
        purging.refuse_unknown(purging.unknown_in_remotes(layout), accepted)  # before the source is cleared
    work = _source_step(work)
    watch.lap("source")
    seen = NOTHING_CONDEMNED
    while True:
        work, journal, search_terms = _planned(work, accepted, seen)
        watch.lap("plan")
        deleted = dict(work.batch.deleted)
        for store, count in purging.carry_out(layout, journal).items():
            deleted[store] = deleted.get(store, 0) + count
        work = work.keep(replace(work.batch, deleted=deleted))
        project.ledger.drop_reasons(work.ids)  # what people wrote about the requests may name who is erased
        project.ledger.scrub()
        watch.lap("delete")
        wanted = search_terms or SearchTerms(journal.condemned.objects, journal.condemned.run_entries)
        report = purging.scan_stores(layout, wanted, ground.everybody(work.requests))
        watch.lap("scan")
        if report.clean:
            break
        purging.retire_journal(layout, batch_id)
        # Only a restore brings back what no lock, journal or list of today tells of; else a person decides.
        if not layout.restored_locks.exists() or seen | report.holding == seen:
            raise VerificationError(
                f"traces are left after the purge {purging.residue_line(report)}; see `lmeraser audit --stores`"
            )
        seen |= report.holding
    names = sorted({*deleted, *(row.store for row in report.stores)})
    stores = tuple(StoreCounts(name, deleted.get(name, 0), 0, journal.unknown.get(name, 0)) for name in names)
    checks = tuple(purging.checks(report, search_terms is not None, journal.unknown))
    return Done(replace(work.batch, stores=stores, scan=checks), watch.laps)


def _planned(work: Work, accepted: bool, seen: Condemned) -> tuple[Work, purging.PurgeJournal, SearchTerms | None]:
    """What goes, and what a scan must not find then: of a try that was killed, or planned now and kept for the next one.

    Args: accepted: objects may stay of which nobody can tell what they were made of; seen: by an earlier scan.
    """
    layout, batch_id = work.project.layout, work.batch.batch_id
    journal, search_terms = purging.read_journal(layout, batch_id), purging.kept_search_terms(layout, batch_id)
    if journal is None:
        planned = _plan(work, search_terms or SearchTerms(), seen)
        # Read before they go: a later try, after a crash or after traces were found, looks for all of it again.
        purging.refuse_unknown(planned.unknown, accepted)
        work = replace(work, batch=replace(work.batch, unknown_accepted=accepted))
        search_terms = planned.search_terms.with_words_of(search_terms or SearchTerms())
        purging.keep_search_terms(layout, batch_id, search_terms)
        journal = planned.journal
        purging.write_journal(layout, batch_id, journal)
    return work, journal, search_terms


def _plan(work: Work, kept: SearchTerms, seen: Condemned) -> purging.PurgePlan:
    """What goes. Args: kept: what an earlier step or try looks for; it tells the batch's images in clear."""
    layout, suppression_list = work.project.layout, SuppressionList.of(work.project.layout)
    images, everybody = suppression_list.images.knowing(kept.texts), ground.everybody(work.requests)
    old_values = purging.OldValues(Corrections.of(suppression_list), kept.ids)
    # By keyed hashes alone an image, or an old value, is found only in what is read whole.
    told = len(images_among(everybody)) <= len(images.clear) and bool(kept.ids or not corrections_among(everybody))
    known = purging.known_objects(layout) if told else NOTHING
    return purging.plan(layout, suppression_list.is_erased, known, images, seen, old_values)


def _source_step(work: Work) -> Work:
    """Clear the source if params say so; what the pipeline then gives is checked like any other state."""
    work = clear_source(work)
    if work.batch.source_rows is not None:  # split ran again on the shorter source
        work = replace(work, batch=verify(work).batch)
    return work.keep(work.batch)


def clear_source(work: Work) -> Work:
    """Delete the subjects' rows and files from the source if params say so; the batch then tells what happened, in words.

    How many rows go is stored before the first of them does: after a crash they may be gone.
    Raises: ProjectError, VerificationError if somebody changed the project or the source meanwhile; StepFailedError.
    """
    project, batch = work.project, work.batch
    if not batch.outcome.corrected and all(request.type == RECTIFIED for request in work.requests):
        return replace(work, batch=replace(batch, source="the source has the right values already"))
    if not project.params.source.erase:
        return replace(work, batch=replace(batch, source=batch.outcome.source))
    if batch.source_rows is None:  # else rows are gone already, and what DVC says of the source is our own doing
        ground.require_own_changes(dvc.status(project.layout))
    source = open_erasable_source(project.params.source, project.layout.root)
    table = source.table()
    key, wanted = project.subject_key(), ground.everybody(work.requests)
    leaving = {subject for subject in table["subject"].unique() if key.pseudonym(subject) in wanted}
    paths = _rows_of_images(work, source)
    rows = max(int((table["subject"].isin(leaving) | table["path"].isin(paths)).sum()), batch.source_rows or 0)
    work = work.keep(replace(batch, source_rows=rows))
    made = read_outs(project.layout.lock)
    source.drop(lambda subject: key.pseudonym(subject) in wanted, paths)
    purging.drop_rows(project.layout, batch.batch_id)
    # `split` alone reads the shorter source. Its outs are the same, unless somebody brought other records meanwhile.
    dvc.run(project.layout, "repro", "--quiet", "--single-item", "split")
    if read_outs(project.layout.lock) != made:
        raise VerificationError("the source has other records than those that were verified; `lmeraser resume` verifies again")
    return replace(work, batch=replace(work.batch, source=f"erased: {rows} rows and their files"))


def _rows_of_images(work: Work, source: ErasableSource) -> list[str]:
    """The paths of the source's rows that hold an image of the batch, kept for a crash: the images go before the rows."""
    project, batch_id = work.project, work.batch.batch_id
    images = ErasedImages(ground.everybody(work.requests), project.subject_key())
    if not images:
        return []
    paths = purging.kept_rows(project.layout, batch_id)
    if paths is None:
        paths = source.paths_of(images)
        purging.keep_rows(project.layout, batch_id, paths)
    return paths


def drop_search_terms(work: Work) -> None:
    """Drop the clear names that the scan looked for: it found none of them."""
    purging.drop_search_terms(work.project.layout, work.batch.batch_id)


class _Watch:
    """Seconds of the parts of a step."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now
