"""What audits leave in the ledger: counts and verdicts, no names. Before the first erasure nothing: it is nobody's evidence.

A ledger with an event in it would also keep the subject key from being made (`Project.ensure_subject_key`).
"""

from collections.abc import Mapping
from typing import Any

from flows.project import Project
from lmeraser.pipeline.locks import Comparison

STORES, REBUILD, MEMBERSHIP = "stores audited", "rebuild audited", "membership audited"
OF_PEOPLE = ("control_detected", "after_flagged", "power", "power_interval")


def note_rebuild(project: Project, comparison: Comparison, seconds: float) -> None:
    """Args: seconds: that the rebuild took, export and comparison included."""
    counts = {"artifacts": comparison.artifacts, "differing": len(comparison.differing), "seconds": round(seconds, 3)}
    _note(project, REBUILD, {"equal": comparison.equal, **counts})


def note_membership(project: Project, verdict: Mapping[str, Any]) -> None:
    """The verdict of a drill; what came of its people only where they are no small group: events cannot be deleted."""
    kept = {name: verdict[name] for name in ("verdict", "people", "retrainings")}
    if verdict["people"] >= project.params.evaluate.min_group:
        kept |= {name: verdict[name] for name in OF_PEOPLE}
    _note(project, MEMBERSHIP, kept)


def _note(project: Project, kind: str, data: Mapping[str, Any]) -> None:
    if project.erased.pseudonyms:
        project.ledger.note(None, kind, data)
