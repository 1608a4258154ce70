"""The protocol of a purge, and the functions that callers use.

    facts -> what goes -> search terms kept -> journal written -> deletes -> scan in a new process

    planned = plan(layout, is_erased, known_objects(layout)) nothing was deleted yet; everything that will be is known
    refuse_unknown(planned.unknown, accepted)
    keep_search_terms(layout, batch_id, planned.search_terms)
    write_journal(layout, batch_id, planned.journal)
    carry_out(layout, planned.journal)                       after a crash: carry_out(layout, read_journal(layout, batch_id))
    scan_stores(layout, search_terms, pseudonyms)            what it finds: retire_journal, and the request stays open
    drop_search_terms(layout, batch_id)

The order is the point. A try that finds a journal does not plan again: so the search terms are on the disk before the journal,
and the journal before the first delete, because once some of it is gone, what depended on what can no longer be computed. Each
call may be repeated after a crash. Whoever calls holds the workspace's lock.
"""

from flows.purge.delete import carry_out, live
from flows.purge.journal import PurgeJournal, journal_path, read_journal, remembered, retire_journal, write_journal
from flows.purge.known import known_objects
from flows.purge.marks import OldValues
from flows.purge.plan import PurgePlan, by_store, plan, refuse_unknown, told_unknown, unknown_in_remotes
from flows.purge.report import ScanReport, checks, residue_line
from flows.purge.scan import audit_stores, scan_stores
from flows.purge.search_terms import drop_rows, drop_search_terms, keep_rows, keep_search_terms, kept_rows, kept_search_terms

__all__ = [
    "OldValues",
    "PurgeJournal",
    "PurgePlan",
    "ScanReport",
    "audit_stores",
    "by_store",
    "carry_out",
    "checks",
    "drop_rows",
    "drop_search_terms",
    "journal_path",
    "keep_rows",
    "keep_search_terms",
    "kept_rows",
    "kept_search_terms",
    "known_objects",
    "live",
    "plan",
    "read_journal",
    "refuse_unknown",
    "remembered",
    "residue_line",
    "retire_journal",
    "scan_stores",
    "told_unknown",
    "unknown_in_remotes",
    "write_journal",
]
