"""Erasures that are rebuilt because the audit key chose them: which are due, and what a rebuild gave, as events of the ledger."""

import time

from flows.audit.notes import note_rebuild
from flows.project import Project
from lmeraser.erase.states import CERTIFIED
from lmeraser.pipeline.locks import Comparison
from lmeraser.prove.selection import REBUILT, AuditKey, Selection, selection_of


def own_selection(project: Project) -> Selection | None:
    """By the project's own audit key; None while it has none, so nothing was chosen."""
    path = project.layout.audit_key
    if not path.exists():
        return None
    return selection_of(project.ledger.events(kinds=(CERTIFIED, REBUILT)), [AuditKey.load_or_create(path)])


def due(project: Project) -> tuple[str, ...]:
    """Ids of the requests whose rebuild was chosen, and was not done or gave other artifacts."""
    selection = own_selection(project)
    return (*selection.missing, *selection.unequal) if selection else ()


def never_rebuilt(project: Project) -> tuple[str, ...]:
    """Those of `due` that were not tried: what a server starts by itself. That artifacts differ is for people."""
    selection = own_selection(project)
    return selection.missing if selection else ()


def note_rebuilt(project: Project, comparison: Comparison) -> tuple[str, ...]:
    """Append to the ledger what a rebuild gave, once for each request that it was due for; returns their ids."""
    ids = due(project)
    for request_id in ids:
        project.ledger.note(request_id, REBUILT, {"equal": comparison.equal, "artifacts": comparison.artifacts})
    return ids


def rebuild_and_note(project: Project) -> tuple[Comparison, tuple[str, ...]]:
    """Build again and compare; what came out is in the ledger. Returns also the ids of the requests that it was due for."""
    from flows.audit.rebuild import rebuild  # what asks only what is due needs no tables

    begun = time.monotonic()
    comparison = rebuild(project)
    note_rebuild(project, comparison, time.monotonic() - begun)
    return comparison, note_rebuilt(project, comparison)
