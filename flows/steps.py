"""The steps of a batch of requests, each safe to repeat after a crash. They take ids only: Prefect stores parameters.

quarantined -> removed -> retrained -> verified -> purged -> certified. A later step trusts only what an earlier one stored in
the ledger; one project is changed by one process at a time (`flows.project.workspace`). Evidence comes before what cannot be
undone: nothing is deleted and nothing is signed until `verify` has passed, nothing is signed until the scan found no residue.
"""

import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flows import dvc, kept_locks, remotes
from flows.build import Tuner, build, update
from flows.project import Project
from flows.quarantine import named, refresh, serve_solved
from lmeraser.core.clustering import load_members, load_placements, load_sizes
from lmeraser.core.digest import sha256_of_file
from lmeraser.core.environment import environment, fingerprint
from lmeraser.core.errors import LmeraserError, ProjectError, StepFailedError, VerificationError
from lmeraser.core.progress import say
from lmeraser.core.quarantine import WITHHELD, read_quarantine
from lmeraser.core.records import read_records
from lmeraser.erase.erased import Gatekeeper
from lmeraser.erase.facts import gather_facts
from lmeraser.erase.ledger import Claim
from lmeraser.erase.plan import Plan, make_plan
from lmeraser.erase.requests import Batch, Request
from lmeraser.erase.states import CERTIFIED
from lmeraser.prove.lock import compare, outs_by_stage, read_outs
from lmeraser.prove.scan import Needles
from lmeraser.sources import open_source

if TYPE_CHECKING:
    from lmeraser.prove.statement import Erasure


def require_key(project: Project, requests: list[Request]) -> None:
    """Raise ProjectError unless the subject key is the one by which the requests name their people: another finds nobody."""
    key = project.key().id
    for request in requests:
        for event in project.ledger.events(request.request_id):
            if event.kind == "validated" and event.data.get("key", key) != key:
                raise ProjectError(
                    "the subject key is not the one that the request was accepted with; restore that from your backup"
                )


def form_batch(project: Project, claim: Claim, requests: list[Request]) -> Batch:
    """Plan requests together: what several of them touch is retrained once. Raises: BadInputError if that cannot be done."""
    dvc.require_current(project.layout)
    require_key(project, requests)
    remotes.stores(project.layout)  # a kind that purge cannot clear is refused before anything is destroyed
    facts = gather_facts(project.layout, project.params)
    everybody = {name for request in requests for name in request.pseudonyms}
    accepted = any(request.include_public for request in requests)
    plan = make_plan(named(project, facts, everybody), facts, accepted)
    alone = {
        request.request_id: make_plan(named(project, facts, request.pseudonyms), facts, request.include_public).to_json()
        for request in requests
    }
    ids = [request.request_id for request in requests]
    return project.ledger.open_batch(claim, ids, plan.to_json(), read_outs(project.layout.lock), {"plans": alone})


def remove(project: Project, requests: list[Request]) -> None:
    """Put the subjects on the list that keeps them out for ever."""
    require_key(project, requests)
    everybody = {name for request in requests for name in request.pseudonyms}
    project.erased.add(everybody, project.key()).write(project.layout.erased)


def retrain(project: Project, batch: Batch, tune: Tuner | None = None) -> dict[str, float]:
    """Bring the pipeline up to date without the subjects: only what they touched runs. Returns seconds by stage.

    If a stage fails, the last whole state is brought back and the requests stay open; the served model leaves them out anyway.
    """
    plan = Plan.from_json(batch.plan)
    kept_locks.keep(project.layout, batch.batch_id)
    kept_locks.mend(project.layout, batch.batch_id)
    seconds: dict[str, float] = {}
    try:
        if plan.exact and plan.records_removed:
            withheld = read_quarantine(project.layout)
            first = [f"quarantine@{withheld.folder}"] if withheld and withheld.head == WITHHELD and not plan.rebuild else []
            slots = [*plan.slots_retrained, *plan.slots_emptied]
            seconds = update(project.layout, plan.parts, slots, first, tune)
            if withheld and first:
                serve_solved(project, withheld.folder)
        elif plan.records_removed:
            # Only the replay tells which clusters change: DVC finds out by content.
            build(project.layout)
    except LmeraserError:
        restore(project, batch)
        raise
    return seconds


def restore(project: Project, batch: Batch) -> None:
    """Bring back the artifacts as they were before the batch."""
    try:
        kept_locks.put_back(project.layout, batch.batch_id)
        dvc.run(project.layout, "checkout", "--quiet", "--force")
    except (OSError, LmeraserError):
        say("the last whole state could not be brought back; run `dvc checkout` once the cause is mended")


def expected_changes(project: Project, plan: Plan) -> set[str]:
    """The DVC stages whose outs this plan may change."""
    slots = {*plan.slots_retrained, *plan.slots_emptied}
    if plan.rebuild:
        return set(outs_by_stage(project.layout.lock))
    if not plan.exact:
        slots = set(project.params.slots)
    changed = {"split", "cluster", "validate", "head", "evaluate"}
    return changed | {f"embed@{part}" for part in plan.parts} | {f"tune@{slot}" for slot in slots}


def verify(project: Project, batch: Batch, requests: list[Request]) -> list[tuple[str, str]]:
    """Show that the subjects are gone and that nothing else changed, or raise VerificationError. Returns what was checked
    and what was found."""
    plan = Plan.from_json(batch.plan)
    layout, params = project.layout, project.params
    if dvc.status(layout):
        dvc.run(layout, "repro", "--quiet")  # a crash came between a step's work and its record
        if dvc.status(layout):
            raise VerificationError("the pipeline does not come up to date; see `dvc status`")
    require_key(project, requests)
    key, wanted = project.key(), {name for request in requests for name in request.pseudonyms}
    files = [layout.public, *(layout.part(part) for part in params.parts)]
    kept = {record.id: record.subject for file in files for record in read_records(file)}
    if not kept:
        raise VerificationError("no record was found to check; checking nothing proves nothing")
    if wanted & set(map(key.pseudonym, set(kept.values()))):
        raise VerificationError("records of the request's subjects are still in the parts")
    placed = [member.id for part in params.parts for member in load_placements(layout.leaves(part), part)]
    tuned = [member["id"] for slot in params.slots for member in load_members(layout.members(slot))]
    if not set(placed) | set(tuned) <= set(kept) or sorted(placed) != sorted(tuned):
        raise VerificationError("a cluster holds a record that is in no part, or misses one")
    after = outs_by_stage(layout.lock)
    changed = {stage for stage, outs in after.items() if any(batch.before.get(path) != md5 for path, md5 in outs.items())}
    surplus = sorted(changed - expected_changes(project, plan))
    if surplus:
        raise VerificationError(f"{surplus[0]} changed, and the plan did not name it ({len(surplus)} such stages)")
    used = {size["slot"] for size in load_sizes(layout.clusters)}
    if plan.exact and (len(used) != plan.clusters_total or not used >= set(plan.slots_retrained)):
        raise VerificationError(f"{len(used)} clusters came out, the plan said {plan.clusters_total}")
    return [
        ("the pipeline is up to date", f"{len(after)} stages"),
        ("no retained record belongs to the erased subjects", f"{len(kept)} records"),
        ("each training record is in exactly one cluster", f"{len(tuned)} records in {len(used)} clusters"),
        ("only planned stages changed", f"{len(changed)} changed, {len(after) - len(changed)} untouched"),
    ]


def leave_quarantine(project: Project) -> None:
    """Serve the new artifacts; people of other open requests stay left out."""
    folder = refresh(project, renewed=True)
    if folder:
        from flows.quarantine import solve

        solve(project, folder)


def clear_source(project: Project, batch: Batch, requests: list[Request], claim: Claim | None) -> str:
    """Delete the subjects' rows and files from the source if params say so; returns what happened, in words."""
    plan = Plan.from_json(batch.plan)
    if not project.params.source.erase:
        return plan.source
    source = open_source(project.params.source, project.layout.root)
    table = source.table()
    key, wanted = project.key(), {name for request in requests for name in request.pseudonyms}
    gone = table[table["subject"].map({one: key.pseudonym(one) for one in table["subject"].unique()}).isin(wanted)]
    rows = max(len(gone), int(batch.facts.get("source_rows", 0)))  # after a crash the rows may be gone already
    batch.facts["source_rows"] = rows
    project.ledger.save_batch(replace(batch), claim)
    if len(gone):
        problems = source.drop(gone["line"].tolist(), gone["path"].tolist())
        if problems:
            raise StepFailedError(f"source: {problems[0]}; check their permissions")
        dvc.run(project.layout, "repro", "--quiet")  # split reads the shorter source; its outs are the same
    return f"erased: {rows} rows and their files"


def code_revision(root: Path) -> str:
    """The commit of the project's code, marked if files that git tracks differ from it."""
    git = ["git", "-C", str(root)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return "none (no commit)"
    code = ("lmeraser", "stages", "flows", "dvc.yaml", "tune")
    dirty = subprocess.run([*git, "status", "--porcelain", "--", *code], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+changed" if dirty.stdout.strip() else "")


def forget_batch(project: Project, batch: Batch) -> None:
    """Drop what a finished batch kept for a crash."""
    kept_locks.drop(project.layout, batch.batch_id)


def purge(project: Project, batch: Batch, requests: list[Request], claim: Claim) -> dict[str, float]:
    """Clear the source if params say so, then every store, then scan all of them in a new process. Returns seconds by part.

    Raises: StepFailedError if a store cannot be cleared, VerificationError if something is left.
    """
    from flows import purge as purging
    from flows import scan

    layout, keeper = project.layout, Gatekeeper(project.erased, project.key_file)
    watch = _Watch()
    accepted = project.accepts_unknown or bool(batch.facts.get("unknown_accepted"))
    if project.params.source.erase and purging.read_journal(layout, batch.batch_id) is None:
        purging.refuse_unknown(purging.unknown_in_remotes(layout), accepted)  # before the source is cleared
    batch.facts["source"] = clear_source(project, batch, requests, claim)
    project.ledger.save_batch(batch, claim)
    watch.lap("source")
    journal, needles = purging.read_journal(layout, batch.batch_id), scan.kept_needles(layout, batch.batch_id)
    if journal is None:
        planned = purging.plan(layout, keeper.is_erased)
        # Read before they go: a later try, after a crash or after traces were found, looks for all of it again.
        purging.refuse_unknown(planned.unknown, accepted)
        batch.facts["unknown_accepted"] = accepted
        found_now = scan.needles_for(layout, planned, keeper.is_erased)
        needles = found_now.with_words_of(needles or Needles())
        scan.keep_needles(layout, batch.batch_id, needles)
        journal = planned.journal
        purging.write_journal(layout, batch.batch_id, journal)
    watch.lap("plan")
    deleted = batch.facts.setdefault("deleted", {})
    for store in purging.carry_out(layout, journal):
        deleted[store["store"]] = deleted.get(store["store"], 0) + store["deleted"]
    project.ledger.save_batch(batch, claim)
    project.ledger.scrub()
    watch.lap("delete")
    found = scan.scan_stores(layout, needles or Needles(frozenset(journal["objects"]), frozenset(journal["run_entries"])))
    watch.lap("scan")
    if not found["clean"]:
        path = purging.journal_path(layout, batch.batch_id)
        path.rename(path.with_name(f"{batch.batch_id}.{time.time_ns()}.json"))  # the next try plans anew, and remembers this one
        raise VerificationError(f"traces are left after the purge {scan.left(found)}; see `lmeraser audit --stores`")
    batch.facts["stores"] = [
        {"store": name, "deleted": deleted.get(name, 0), "residue": 0}
        for name in sorted({*deleted, *(one["store"] for one in found["stores"])})
    ]
    batch.facts["unknown"] = journal.get("unknown", {})
    batch.facts["scan"] = scan.checks(found, needles is not None, batch.facts["unknown"])
    project.ledger.save_batch(batch, claim)
    return watch.laps


def forget_needles(project: Project, batch: Batch) -> None:
    """Drop the clear names that the scan looked for: it found none of them."""
    from flows.scan import drop_needles

    drop_needles(project.layout, batch.batch_id)


class _Watch:
    """Seconds of the parts of a step."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = now - self._last
        self._last = now


def served_files(project: Project) -> list[Path]:
    """Every file that the served model is made of."""
    layout = project.layout
    slots = [size["slot"] for size in load_sizes(layout.clusters)]
    tuned = [layout.tuned(slot) for slot in slots]
    return [layout.backbone, layout.skeleton, layout.router, layout.clusters / "clusters.json", *tuned, layout.head]


def certify(project: Project, batch: Batch, request_id: str, claim: Claim) -> None:
    """Sign what was done, append it to the chain of certificates, and end the request."""
    from lmeraser.prove.certificate import issue, read_head
    from lmeraser.prove.keys import load_or_create_signer, load_public, signing_key_path

    layout, ledger = project.layout, project.ledger
    signer = load_or_create_signer(signing_key_path(layout.private_state), layout.public_keys)
    known = ledger.last_event("certified")
    head = (int(known.data["sequence"]), str(known.data["sha256"])) if known else None
    path = issue(
        layout.certificates, erasure_of(project, batch, ledger.get(request_id)), signer, load_public(layout.public_keys), head
    )
    signed = read_head(layout.certificates)
    if signed is None:
        raise VerificationError("certificates/HEAD is missing although a certificate was signed; restore it from git")
    sequence, digest = signed
    note = {"sequence": sequence, "sha256": digest, "batch": batch.batch_id}
    ledger.move([request_id], CERTIFIED, claim, note, certificate=str(path.relative_to(layout.root)))


def erasure_of(project: Project, batch: Batch, request: Request) -> "Erasure":
    """What a certificate tells of a request: what was removed for it alone, and what its batch retrained."""
    from lmeraser.prove.statement import Check, Counts, Erasure, Store

    layout, device = project.layout, project.params.device
    after = read_outs(layout.lock)
    changed = compare(batch.before, after).differing
    own = batch.facts["plans"][request.request_id]
    return Erasure(
        request_id=request.request_id,
        pseudonyms=request.pseudonyms,
        subject_key_id=project.key().id,
        received_at=request.received_at,
        # Not before the receipt, whatever the clock says now: it may have been moved back.
        completed_at=max(datetime.now(UTC).isoformat(timespec="seconds"), request.received_at),
        plan=Counts.of(batch.plan | {"records_removed": own["records_removed"]}),
        batch_requests=len(batch.facts["plans"]),
        served={str(path.relative_to(layout.root)): sha256_of_file(path) for path in served_files(project)},
        changed={path: (batch.before.get(path), after.get(path)) for path in changed},
        unchanged=len(after) - len([path for path in changed if path in after]),
        environment=environment(device),
        fingerprint=fingerprint(device),
        code_revision=code_revision(layout.root),
        checks=tuple(Check(check, found) for check, found in [*batch.facts["checks"], *batch.facts["scan"]]),
        stores=tuple(Store(one["store"], one["deleted"], one["residue"]) for one in batch.facts["stores"]),
        source=batch.facts["source"],
        approved=any(event.kind == "approved" for event in project.ledger.events(request.request_id)),
    )
