"""verified: what must hold before anything is deleted or signed. Checks, and never repairs."""

from collections.abc import Collection
from dataclasses import replace

from flows.dvc import command as dvc
from flows.project import Project
from flows.requests import ground
from flows.requests.retrain import changed_stages, expected_changes
from flows.requests.work import Done, Work
from lmeraser.clusters.files import load_sizes
from lmeraser.core.digest import sha256_of_file
from lmeraser.core.errors import VerificationError
from lmeraser.erase.erased import corrections_among, images_among, people_among
from lmeraser.erase.plan import Plan
from lmeraser.erase.retained import require_corrected, require_partition, retained_ids, retained_pseudonyms
from lmeraser.pipeline.locks import Outs, compare, read_files, read_outs
from lmeraser.pipeline.mixing import require_one_environment
from lmeraser.prove.absence import Absence, Tree
from lmeraser.serve.files import served_files

FROZEN = {"pretrain", "skeleton", "recipe"}  # stages of what public records alone decide


def verify(work: Work) -> Done:
    """Show that the subjects are gone and that nothing else changed, or raise VerificationError. Changes nothing in the project.

    Returns: the batch with what was checked and what was found, on which ground, and the digests of what is served. An error's
    cause that decides what the next try does is stored with the batch (`mixed`, `unplanned`).
    """
    project, requests = work.project, work.requests
    layout = project.layout
    stale, unchanged = dvc.status_and_unchanged(layout)
    if stale:
        ground.require_own_changes(stale, ground.source_of(project, work.batch))
        raise VerificationError(f"{len(stale)} stages are not up to date; run `dvc repro`, then `lmeraser resume`")
    _require_one_environment(work)
    ground.require_key(project, requests)
    ground.require_listed(project, requests)
    changed, after = changed_stages(project, work.batch)
    recorded = {path: md5 for outs in after.values() for path, md5 in outs.items()}
    gone, known = ground.everybody(requests), _unchanged(work, recorded)
    kept = retained_ids(layout, project.params, project.subject_key(), gone, known)
    arriving = () if work.batch.moved else work.batch.arriving  # else somebody may have taken them out
    right = require_corrected(layout, project.params, project.subject_key(), gone, arriving)
    absence = prove_absence(project, people_among(gone))
    placed = require_partition(layout, project.params, kept)
    used = {size.slot for size in load_sizes(layout.clusters)}
    replayed = _require_planned(work, changed, used)
    corrected = len(corrections_among(gone))
    comparison = compare(recorded, read_files(layout.root, recorded))
    if not comparison.equal:
        raise VerificationError(
            f"{comparison.differing[0]} is not what the lock names ({len(comparison.differing)} such artifacts); delete what is "
            "not, run `dvc checkout` (metrics: `dvc repro`), then `lmeraser resume`"
        )
    checks = (
        ("the pipeline is up to date", _asked(len(after), unchanged)),
        ("every artifact is the file that its lock names, byte for byte", f"{comparison.artifacts} artifacts"),
        ("everybody of the request is on the list of erased people", ground.counted(gone)),
        (_absent(gone), f"{len(kept)} records"),
        *([("corrected records are retained with the right values", f"{right} of {corrected}")] if corrected else []),
        ("everybody of the request is absent from the tree over the retained people", f"{len(absence.proofs)} proofs"),
        ("each training record is in exactly one cluster", f"{placed} records in {len(used)} clusters"),
        ("only planned stages changed", f"{len(changed)} changed, {len(after) - len(changed)} untouched"),
    )
    checked = replace(work.batch, replayed=replayed, served=served_digests(project), checks=checks, absence=absence.to_json())
    return Done(ground.record(project, checked))


def prove_absence(project: Project, pseudonyms: Collection[str]) -> Absence:
    """Proofs that people are not among those of whom the built state retains a record. Raises: VerificationError."""
    return Tree(retained_pseudonyms(project.layout, project.params, project.subject_key())).absence(pseudonyms)


def _asked(stages: int, unchanged: int) -> str:
    """How it is known that stages are up to date: DVC was asked now, or nothing of them changed since it was."""
    return f"{stages} stages" + (f", {unchanged} of them unchanged since DVC found them so" if unchanged else "")


def _absent(gone: set[str]) -> str:
    """The check that none of them is retained, by the kinds of what was erased."""
    kinds = {
        "belongs to the erased subjects": people_among(gone),
        "holds an erased image": images_among(gone),
        "has a value that was corrected": corrections_among(gone),
    }
    return "no retained record " + " or ".join(kind for kind, those in kinds.items() if those)


def _require_one_environment(work: Work) -> None:
    """Raise VerificationError where artifacts of two environments are in the model; then the retraining is taken again."""
    try:
        require_one_environment(work.project.layout, work.project.params)
    except VerificationError:
        work.keep(replace(work.batch, mixed=True))
        raise


def _unchanged(work: Work, recorded: Outs) -> set[str]:
    """Files of records of which it is known that they hold nobody of the batch: its people were looked for when it was formed.

    They were in none of them then, and the locks name the same content still; `verify` compares the files with that.
    """
    before, holding = work.batch.before, work.batch.holding
    if holding is None:  # of a version that did not look
        return set()
    return {path for path, md5 in recorded.items() if before.get(path) == md5 and path not in holding}


def _require_planned(work: Work, changed: set[str], used: set[str]) -> Plan | None:
    """Raise VerificationError if something changed that the plan does not name. Returns what it came to where it was replayed.

    Where somebody else changed the project on the way (and the pipeline was brought up to date with that), the plan becomes what
    it came to: a replay, of which every artifact that changed is named.
    """
    project, batch = work.project, work.batch
    plan = batch.outcome
    surplus = sorted(changed - expected_changes(project, plan))
    other = plan.exact and (len(used) != plan.clusters_total or not used >= set(plan.slots_retrained))
    if (surplus or other) and batch.moved:
        total = sum(size.records for size in load_sizes(project.layout.clusters))
        public = str(project.layout.public.relative_to(project.layout.root))
        remade = bool(changed & FROZEN) or batch.before.get(public) != read_outs(project.layout.lock).get(public)
        return plan.as_replay(sorted(used), project.params.parts, total, remade)
    if surplus or other:
        work.keep(replace(batch, unplanned=True))
        what = f"{surplus[0]} changed, and the plan did not name it ({len(surplus)} such stages)"
        raise VerificationError(
            f"{what if surplus else f'{len(used)} clusters came out, the plan said {plan.clusters_total}'}; look why, then "
            "`lmeraser resume` takes it as it is, and the certificate says that the pipeline was replayed"
        )
    return batch.replayed


def served_digests(project: Project) -> dict[str, str]:
    """SHA-256 of each served file that is there, by its path in the project."""
    root = project.layout.root
    return {str(path.relative_to(root)): sha256_of_file(path) for path in served_files(project.layout) if path.exists()}
