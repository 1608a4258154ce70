"""The full scan, or the part of it whose turn is today; what came out is an event of the ledger."""

from collections.abc import Iterable

from flows.audit.notes import STORES
from flows.project import Project
from flows.purge.report import ScanReport
from flows.purge.scan import audit_stores, today


def audit_and_note(project: Project, canaries: Iterable[str] = (), share: int = 1) -> ScanReport:
    """Look into every store, into one file of `share`, and append to the ledger's events what came out: counts and no names.

    Before the first erasure only canaries can be looked for, which is nobody's evidence: then nothing is appended.
    """
    day = today()
    report = audit_stores(project.layout, canaries, share)
    if project.erased.pseudonyms:
        counts = {"objects": report.total("objects"), "bytes": report.total("bytes"), "waiting": report.total("waiting")}
        project.ledger.note(None, STORES, {"clean": report.clean, "day": day, "share": f"1/{share}", **counts})
    return report


def audited_today(project: Project) -> bool:
    """Whether the last audit of the stores, of everything or of a part, was today (UTC)."""
    last = project.ledger.last_event(STORES)
    return last is not None and last.data.get("day") == today()
