"""The purge and the scan where stores alone were restored: nobody is in the model, so nothing is retrained or signed."""

from collections import Counter
from dataclasses import dataclass, replace

from flows.dvc import command as dvc
from flows.dvc import config as remotes
from flows.project import Project
from flows.purge import step as purging
from flows.purge.report import EVERYTHING
from flows.purge.search_terms import kept_files, words_of_open_requests
from lmeraser.core.errors import VerificationError
from lmeraser.core.layout import Layout
from lmeraser.core.private import close_private
from lmeraser.core.progress import say
from lmeraser.erase.corrections import Corrections
from lmeraser.erase.erased import SuppressionList
from lmeraser.erase.taint import NOTHING_CONDEMNED, Condemned
from lmeraser.pipeline.locks import outs_by_stage
from lmeraser.prove.search_terms import SearchTerms
from lmeraser.stores.dvc_objects import contents, read_manifests

BATCH = "restored"  # names its journal and its terms, as a batch's id does


@dataclass(frozen=True)
class Cleared:
    """Attributes: deleted: objects and run entries by store; files: how many the scan looked at."""

    deleted: dict[str, int]
    files: int


def clear_stores(project: Project) -> Cleared:
    """Delete what names anybody on the list from every store, then scan all of them whole. Safe to repeat after a kill.

    Backups hold what no lock, journal or list of today tells of. So a purge that overlooked something is planned again from what
    the scan saw, until the scan finds nothing, or nothing more that can be deleted.
    Raises: BlockedError where objects stay that nobody can tell what they were made of; StepFailedError, VerificationError.
    """
    layout, seen, deleted = project.layout, NOTHING_CONDEMNED, Counter[str]()
    while True:
        journal, terms = _planned(project, seen)
        deleted.update(purging.carry_out(layout, journal))
        project.ledger.scrub()
        condemned = journal.condemned  # with what earlier purges condemned, but for run entries that are seen to be clean now
        terms = replace(terms, objects=condemned.objects, run_entries=condemned.run_entries)
        stores = {store.name for store in remotes.stores(layout)}
        cleared = {store: count for store, count in deleted.items() if store in stores and count}
        if not (condemned or terms.patterns()):
            purging.retire_journal(layout, BATCH)
            purging.drop_search_terms(layout, BATCH)
            return Cleared(cleared, 0)  # nothing was ever purged here, and no store knows anybody: a scan would look for nothing
        report = purging.scan_stores(layout, terms, project.erased.pseudonyms, EVERYTHING)
        purging.retire_journal(layout, BATCH)
        if report.clean:
            purging.drop_search_terms(layout, BATCH)
            return Cleared(cleared, report.total("objects"))
        if seen | report.holding == seen:
            raise VerificationError(
                f"traces of erased people are left in the stores {purging.residue_line(report)}; see `lmeraser audit --stores`, "
                "mend that, and run `lmeraser reapply` again"
            )
        seen |= report.holding
        say("the stores hold more of erased people than locks and run entries tell; what the scan saw is purged")


def _planned(project: Project, seen: Condemned) -> tuple[purging.PurgeJournal, SearchTerms]:
    """What goes, and what a scan must not find then: of a try that was killed, or planned now and kept for the next one."""
    layout = project.layout
    journal, kept = purging.read_journal(layout, BATCH), purging.kept_search_terms(layout, BATCH)
    terms = words_of_open_requests(layout).with_words_of(kept or SearchTerms())  # also of a restored request that is finished
    if journal is None:
        listed = SuppressionList.of(layout)
        old_values = purging.OldValues(Corrections.of(listed), frozenset())
        planned = purging.plan(layout, listed.is_erased, seen=seen, old_values=old_values)
        purging.refuse_unknown(planned.unknown, project.accepts_unknown)
        terms = planned.search_terms.with_words_of(terms)
        purging.keep_search_terms(layout, BATCH, terms)
        journal = planned.journal
        purging.write_journal(layout, BATCH, journal)
    return journal, terms


def mend_cache(layout: Layout) -> None:
    """Put what the locks name into the cache again where it lacks it, as a restored one does. The pipeline must be up to date."""
    cache = remotes.cache(layout)
    stored = contents(cache)
    manifests = read_manifests(cache, stored)

    def is_whole(md5: str) -> bool:
        return md5 in stored.objects and all(member in stored.objects for member in manifests.get(md5, {}).values())

    made = f"{layout.artifacts.name}/"  # metrics need not be in a cache
    lacking = [
        stage
        for stage, outs in outs_by_stage(layout.lock).items()
        if any(path.startswith(made) and not is_whole(md5) for path, md5 in outs.items())
    ]
    if lacking:
        dvc.commit(layout, lacking)
        close_private(layout)


def drop_finished_terms(project: Project) -> None:
    """Drop clear names that a restored folder brought back, kept for the scan of a request that is finished by now."""
    under_way = {request.batch_id for request in project.ledger.all() if request.is_open}
    for path in kept_files(project.layout):
        batch_id = path.name.partition(".")[0]
        if batch_id not in under_way:
            purging.drop_search_terms(project.layout, batch_id)
