"""The steps of a batch of requests, each safe to repeat after a crash. They take ids only: Prefect stores parameters.

quarantined -> removed -> retrained -> verified -> purged -> certified. A later step trusts only what an earlier one stored in
the ledger; one project is changed by one process at a time (`flows.project.workspace`). Evidence comes before what cannot be
undone: nothing is deleted and nothing is signed until `verify` has passed, nothing is signed until the scan found no residue.
"""

import time
from dataclasses import asdict, replace
from pathlib import Path

from flows.dvc import command as dvc
from flows.dvc import lock_backups as kept_locks
from flows.project import Project
from flows.purge import plan as purging
from flows.requests import ground
from flows.requests.intake import divide, set_aside
from flows.requests.quarantine import named, refresh, serve_solved
from flows.run.build import Tuner, build, update
from lmeraser.clusters.files import load_members, load_placements, load_sizes
from lmeraser.core.digest import sha256_of_file
from lmeraser.core.errors import BlockedError, LmeraserError, ProjectError, StepFailedError, VerificationError
from lmeraser.core.private import close_private
from lmeraser.core.progress import say
from lmeraser.data.records import read_records
from lmeraser.erase.erased import SuppressionList
from lmeraser.erase.facts import gather_facts
from lmeraser.erase.ledger import Claim
from lmeraser.erase.plan import Plan, make_plan
from lmeraser.erase.requests import Batch, Request
from lmeraser.learn.same_environment import require_same_environment
from lmeraser.pipeline.locks import Outs, compare, outs_by_stage, read_files, read_outs
from lmeraser.pipeline.mixing import require_one_environment
from lmeraser.prove.search_terms import SearchTerms
from lmeraser.serve.quarantine import WITHHELD, read_quarantine
from lmeraser.sources import check_source, open_source

FROZEN = {"pretrain", "skeleton", "recipe"}  # stages of what public records alone decide


def require_key(project: Project, requests: list[Request]) -> None:
    """Raise ProjectError unless the subject key is the one by which the requests name their people: another finds nobody."""
    key = project.key().id
    for request in requests:
        for event in project.ledger.events(request.request_id):
            if event.kind == "validated" and event.data.get("key", key) != key:
                raise ProjectError(
                    "the subject key is not the one that the request was accepted with; restore that from your backup"
                )


def _refuse_unknown_early(project: Project) -> None:
    """As the purge does, before anything is retrained. A store that is away keeps nobody in the model: the purge asks it."""
    try:
        purging.refuse_unknown(purging.unknown_in_remotes(project.layout), project.accepts_unknown)
    except StepFailedError as error:
        say(f"what remotes hold is looked at before the purge: {error}")


def form_batch(project: Project, claim: Claim, requests: list[Request]) -> tuple[Batch, list[Request]]:
    """Plan requests together: what several of them touch is retrained once.

    Returns: the batch, and the requests in it: who would keep the others from being carried out is set aside with the reason.
    Raises: BadInputError if nothing can be planned, BlockedError or RequestError if all were set aside.
    """
    dvc.require_current(project.layout)
    require_key(project, requests)
    require_same_environment(project.layout, project.params)
    # Before anything is destroyed: a source that cannot be cleared, and a remote of a kind that purge cannot clear.
    check_source(project.params.source, project.layout.root)
    _refuse_unknown_early(project)
    facts = gather_facts(project.layout, project.params)
    requests, culprits = divide(project, facts, requests)
    for request, obstacle in culprits:
        set_aside(project, request, obstacle)
        say(f"request {request.request_id} was set aside, the others go on: {obstacle}")
    if not requests:
        raise BlockedError(f"request {culprits[0][0].request_id} is blocked: {culprits[0][1]}")
    accepted = any(request.include_public for request in requests)
    plan = make_plan(named(project, facts, ground.everybody(requests)), facts, accepted)
    alone = {
        request.request_id: make_plan(named(project, facts, request.pseudonyms), facts, request.include_public).to_json()
        for request in requests
    }
    ids = [request.request_id for request in requests]
    told = {"plans": alone, "ground": asdict(ground.Ground.of(project)), "unknown_accepted": project.accepts_unknown}
    return project.ledger.open_batch(claim, ids, plan.to_json(), read_outs(project.layout.lock), told), requests


def remove(project: Project, requests: list[Request]) -> None:
    """Put the subjects on the lists that keep them out for ever."""
    require_key(project, requests)
    ground.keep_out(project, requests)


def plan_of(batch: Batch) -> Plan:
    """What the batch does: as planned, or as a replay of the pipeline where somebody changed the project on the way."""
    return Plan.from_json(batch.facts.get("replayed") or batch.plan)


def changed_stages(project: Project, batch: Batch) -> tuple[set[str], dict[str, Outs]]:
    """Stages whose outs are not those from before the batch; and all that is recorded now."""
    after = outs_by_stage(project.layout.lock)
    changed = {stage for stage, outs in after.items() if any(batch.before.get(path) != md5 for path, md5 in outs.items())}
    return changed, after


def retrain(project: Project, batch: Batch, tune: Tuner | None = None) -> dict[str, float]:
    """Bring the pipeline up to date without the subjects: only what they touched runs. Returns seconds by stage.

    Where the locks are no longer those that the plan was made on, the whole pipeline is replayed: DVC finds out by content.
    If a stage fails, the last whole state is brought back and the requests stay open; the served model leaves them out anyway.
    """
    plan = plan_of(batch)
    kept_locks.keep(project.layout, batch.batch_id)
    kept_locks.mend(project.layout, batch.batch_id)
    seconds: dict[str, float] = {}
    try:
        if plan.exact and plan.records_removed and changed_stages(project, batch)[0] <= expected_changes(project, plan):
            withheld = read_quarantine(project.layout)
            first = [f"interim_head@{withheld.folder}"] if withheld and withheld.head == WITHHELD and not plan.rebuild else []
            slots = [*plan.slots_retrained, *plan.slots_emptied]
            seconds = update(project.layout, plan.parts, slots, first, tune)
            if withheld and first:
                serve_solved(project, withheld.folder)
        else:
            if plan.exact and plan.records_removed:  # not the state that was planned on
                batch.facts["moved"] = True
            build(project.layout)
    except LmeraserError:
        restore(project, batch)
        raise
    ground.record(project, batch)
    return seconds


def restore(project: Project, batch: Batch) -> None:
    """Bring back the artifacts as they were before the batch."""
    try:
        kept_locks.put_back(project.layout, batch.batch_id)
        dvc.run(project.layout, "checkout", "--quiet", "--force")
        close_private(project.layout)
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
    """Show that the subjects are gone and that nothing else changed, or raise VerificationError. Changes nothing in the project.

    Returns: what was checked and what was found. The batch remembers on which ground, and the digests of what is served.
    """
    layout = project.layout
    stale = dvc.status(layout)
    if stale:
        ground.require_own_changes(stale, ground.source_of(project, batch))
        raise VerificationError(f"{len(stale)} stages are not up to date; run `dvc repro`, then `lmeraser resume`")
    _require_one_environment(project, batch)
    require_key(project, requests)
    ground.require_listed(project, requests)
    kept = _require_gone(project, requests)
    placed, used = _require_partition(project, kept)
    changed, after = changed_stages(project, batch)
    _require_planned(project, batch, changed, used)
    recorded = {path: md5 for outs in after.values() for path, md5 in outs.items()}
    found = compare(recorded, read_files(layout.root, recorded))
    if not found.equal:
        raise VerificationError(
            f"{found.differing[0]} is not what the lock names ({len(found.differing)} such artifacts); delete what is not, run "
            "`dvc checkout` (metrics: `dvc repro`), then `lmeraser resume`"
        )
    batch.facts["served"] = {str(path.relative_to(layout.root)): sha256_of_file(path) for path in served_files(project)}
    ground.record(project, batch)
    return [
        ("the pipeline is up to date", f"{len(after)} stages"),
        ("every artifact is the file that its lock names, byte for byte", f"{found.artifacts} artifacts"),
        ("everybody of the request is on the list of erased people", f"{len(ground.everybody(requests))} people"),
        ("no retained record belongs to the erased subjects", f"{len(kept)} records"),
        ("each training record is in exactly one cluster", f"{placed} records in {len(used)} clusters"),
        ("only planned stages changed", f"{len(changed)} changed, {len(after) - len(changed)} untouched"),
    ]


def _require_one_environment(project: Project, batch: Batch) -> None:
    """Raise VerificationError where artifacts of two environments are in the model; then the retraining is taken again."""
    try:
        require_one_environment(project.layout, project.params)
    except VerificationError:
        batch.facts["mixed"] = True
        raise


def _require_gone(project: Project, requests: list[Request]) -> set[str]:
    """Raise VerificationError if a part holds a record of the subjects; returns the ids of all records."""
    key, wanted = project.key(), ground.everybody(requests)
    files = [project.layout.public, *(project.layout.part(part) for part in project.params.parts)]
    kept = {record.id: record.subject for file in files for record in read_records(file)}
    if not kept:
        raise VerificationError("no record was found to check; checking nothing proves nothing")
    if wanted & set(map(key.pseudonym, set(kept.values()))):
        raise VerificationError(
            "records of the request's subjects are still in the parts; run `dvc repro`, then `lmeraser resume`"
        )
    return set(kept)


def _require_partition(project: Project, kept: set[str]) -> tuple[int, set[str]]:
    """Raise VerificationError unless each training record is in one cluster. Returns how many there are, and the slots in use."""
    layout, params = project.layout, project.params
    placed = [member.id for part in params.parts for member in load_placements(layout.leaves(part), part)]
    tuned = [member["id"] for slot in params.slots for member in load_members(layout.members(slot))]
    if not set(placed) | set(tuned) <= kept or sorted(placed) != sorted(tuned):
        raise VerificationError(
            "a cluster holds a record that is in no part, or misses one; run `dvc repro`, then `lmeraser resume`"
        )
    return len(tuned), {str(size["slot"]) for size in load_sizes(layout.clusters)}


def _require_planned(project: Project, batch: Batch, changed: set[str], used: set[str]) -> None:
    """Raise VerificationError if something changed that the plan does not name.

    Where somebody else changed the project on the way (and the pipeline was brought up to date with that), the plan becomes what
    it came to: a replay, of which every artifact that changed is named.
    """
    plan = plan_of(batch)
    surplus = sorted(changed - expected_changes(project, plan))
    other = plan.exact and (len(used) != plan.clusters_total or not used >= set(plan.slots_retrained))
    if (surplus or other) and batch.facts.get("moved"):
        total = sum(size["records"] for size in load_sizes(project.layout.clusters))
        public = str(project.layout.public.relative_to(project.layout.root))
        remade = bool(changed & FROZEN) or batch.before.get(public) != read_outs(project.layout.lock).get(public)
        batch.facts["replayed"] = plan.as_replay(sorted(used), project.params.parts, total, remade).to_json()
        return
    if surplus or other:
        batch.facts["unplanned"] = True
        what = f"{surplus[0]} changed, and the plan did not name it ({len(surplus)} such stages)"
        raise VerificationError(
            f"{what if surplus else f'{len(used)} clusters came out, the plan said {plan.clusters_total}'}; look why, then "
            "`lmeraser resume` takes it as it is, and the certificate says that the pipeline was replayed"
        )


def leave_quarantine(project: Project) -> None:
    """Serve the new artifacts; people of other open requests stay left out."""
    folder = refresh(project, renewed=True)
    if folder:
        from flows.requests.quarantine import solve

        solve(project, folder)


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


def discard(project: Project, batch: Batch) -> None:
    """Drop what a finished batch kept for a crash."""
    kept_locks.drop(project.layout, batch.batch_id)


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


def served_files(project: Project) -> list[Path]:
    """Every file that the served model is made of."""
    layout = project.layout
    slots = [size["slot"] for size in load_sizes(layout.clusters)]
    tuned = [layout.tuned(slot) for slot in slots]
    return [layout.backbone, layout.skeleton, layout.router, layout.clusters / "clusters.json", *tuned, layout.head]
