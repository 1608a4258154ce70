"""Immediate effect: from the moment that a request is accepted, the served model leaves out what its people influenced.

First, in milliseconds and without torch: the artifacts are linked into a copy, the clusters that change are left out and the
global head is withheld. Then, in under a second where a process is warm: the head is solved again without the people.
"""

import secrets
from collections.abc import Iterable
from dataclasses import replace

import pyarrow.compute as pc

from flows.dvc import command as dvc
from flows.project import Project, locked
from flows.requests.work import Work
from flows.run.moves import roster_of
from flows.run.warm_client import run_chains
from lmeraser.core.digest import readable_json
from lmeraser.core.errors import BadInputError, LmeraserError, ProjectError, StepFailedError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.progress import say
from lmeraser.data.columns import among
from lmeraser.data.records import TRAIN
from lmeraser.erase.requests import Request
from lmeraser.pipeline.files import stage_names
from lmeraser.serve.quarantine import (
    INTERIM,
    WHOLE,
    WITHHELD,
    Quarantine,
    copy_artifacts,
    drop_other_copies,
    lift,
    read_quarantine,
    write_quarantine,
)

HELD_FROM, HELD_TO = "quarantined", "retrained"  # the states in which a request's people are left out
HALFWAY = ("removed", "retrained")  # the states in which the workspace is not whole, or not verified


def whole_layout(project: Project) -> Layout:
    """Where whole artifacts lie: a copy while the workspace may be changing, else the workspace."""
    quarantine = read_quarantine(project.layout)
    return quarantine.layout(project.layout) if quarantine else project.layout


def refresh(project: Project, accepting: Iterable[str] = (), renewed: bool = False) -> str | None:
    """Leave out the people of every open request, and nobody else; lift the quarantine if there is none.

    Args:
        accepting: requests that are being accepted now; renewed: the workspace is whole and newer than the copy.
    Returns: the copy's folder if its global head is still to be solved.
    """
    accepting = set(accepting)
    with locked(project.layout.quarantine_lock, "another process is changing the quarantine; waiting"):
        open_requests = project.ledger.all(open_only=True)
        left_out = [request for request in open_requests if _is_left_out(request) or request.request_id in accepting]
        if not left_out:
            lift(project.layout)
            return None
        try:
            old = None if renewed else read_quarantine(project.layout)
            damaged = False
        except ProjectError:
            old, damaged = None, any(request.batch_id for request in left_out)
        folder = secrets.token_hex(4)
        copy = copy_artifacts(old.layout(project.layout) if old else project.layout, project.layout, folder)
        made = _decide(project, copy, folder, {pseudonym for request in left_out for pseudonym in request.pseudonyms}, damaged)
        write_quarantine(project.layout, made)
        drop_other_copies(project.layout, folder)
    return folder if made.head == WITHHELD and not made.model_withheld else None


def leave_quarantine(work: Work) -> None:
    """Serve the new artifacts; people of other open requests stay left out."""
    project = work.project
    folder = refresh(project, renewed=True)
    if folder:
        solve(project, folder)


def mend(project: Project) -> None:
    """Make the quarantine again if its pointer is damaged; lift it if nobody is in it (a `cancel` was killed halfway)."""
    try:
        there = read_quarantine(project.layout) is not None or project.layout.quarantine_copies.exists()
        left_over = there and not any(map(_is_left_out, project.ledger.all(open_only=True)))
    except ProjectError:
        left_over = True
    if left_over:
        refresh(project)


def renew(project: Project) -> None:
    """Serve what was built since, without the people who are in quarantine: a hold may last for months, and grace for days.

    Call with the workspace's lock. Nothing is done while the workspace is between two states, or stale.
    """
    quarantine = read_quarantine(project.layout)
    begun = any(request.reached in HALFWAY for request in project.ledger.all(open_only=True))
    if quarantine is None or begun:
        return
    if _links(quarantine.layout(project.layout)) == _links(project.layout):
        return
    try:
        dvc.require_current(project.layout)
    except ProjectError:
        return
    solve_if_possible(project, refresh(project, renewed=True))


def _links(layout: Layout) -> dict[str, tuple[int, int]]:
    """Which file each artifact is: the pipeline replaces them, and a copy links them. DVC writes into locks: they tell none."""
    there = {str(path.relative_to(layout.root)): path.stat() for path in layout.artifacts.rglob("*") if path.is_file()}
    return {name: (state.st_ino, state.st_mtime_ns) for name, state in there.items()}


def _is_left_out(request: Request) -> bool:
    return request.reached in ("quarantined", "removed", "retrained")


def _decide(project: Project, copy: Layout, folder: str, pseudonyms: set[str], damaged: bool) -> Quarantine:
    """What to leave out of a copy."""
    if damaged:  # the workspace may be half changed: nothing that is known to be whole is left
        return Quarantine(folder, [], WITHHELD, True)
    roster = roster_of(project, copy)
    private = roster.facts.private
    theirs = among(private["subject"], roster.named(pseudonyms))
    those = among(private["sha256"], roster.images(pseudonyms))
    old = among(private["id"], roster.old_ids(pseudonyms))
    theirs = pc.and_(pc.or_(pc.or_(theirs, those), old), among(private["split"], [TRAIN]))
    without = sorted(private["id"].filter(theirs).to_pylist())
    write_atomically(copy.root / "without.json", readable_json(without), mode=0o600)
    try:
        plan = roster.plan(pseudonyms, include_public=True)
    except BadInputError:  # nothing would be left to learn from
        return Quarantine(folder, [], WITHHELD, True)
    except StepFailedError as error:  # the network could not say where people come to stand who lose some of their records
        say(f"quarantine: all clusters are left out until the retraining: {error}")
        return Quarantine(folder, sorted(roster.facts.used_slots), WITHHELD if without else WHOLE, False)
    # Where only a replay can tell what changes (the paper's clustering), every cluster may.
    changed = {*plan.slots_retrained, *plan.slots_emptied} if plan.exact else set(roster.facts.used_slots)
    slots = sorted(changed & set(roster.facts.used_slots)) if without else []
    return Quarantine(folder, slots, WITHHELD if without else WHOLE, plan.rebuild)


def solve(project: Project, folder: str) -> None:
    """Solve the global head of a copy without the people of open requests, and serve it. Raises: StepFailedError."""
    run_chains(project.layout, [stage_names("interim_head", [folder])])
    serve_solved(project, folder)


def solve_if_possible(project: Project, folder: str | None) -> None:
    """Solve it, if there is one to solve; where it fails, clusters alone answer until the retraining, and that is told."""
    if folder:
        try:
            solve(project, folder)
        except LmeraserError as error:
            say(f"quarantine: the global head stays withheld until the retraining: {error}")


def solve_newest(project: Project) -> None:
    """Solve the global head of what is in quarantine now, if it is withheld still. Raises: StepFailedError."""
    quarantine = read_quarantine(project.layout)
    if quarantine and quarantine.head == WITHHELD and not quarantine.model_withheld:
        solve(project, quarantine.folder)


def serve_solved(project: Project, folder: str) -> None:
    """Serve the head that the stage `interim_head` solved, unless another request came meanwhile."""
    with locked(project.layout.quarantine_lock, "another process is changing the quarantine; waiting"):
        now = read_quarantine(project.layout)
        if now and now.folder == folder and (now.layout(project.layout).root / "interim.safetensors").exists():
            write_quarantine(project.layout, replace(now, head=INTERIM))
