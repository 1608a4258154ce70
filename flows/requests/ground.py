"""What evidence stands on: all locks, the list of erased people, and the files themselves. People move it: with `git reset`, `git
stash`, another branch, `dvc checkout`, an edited params.yaml, new rows in the source.

The ledger says how far a batch was taken. Before a step trusts that, `realign` looks whether the working tree still shows it:
everybody of the batch is on the list (or is put back), and the ground is the one that the last step left. If not, the batch is
set back to where it really is, and the way goes on from there; what somebody else must decide is refused with what to do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from flows.dvc import command as dvc
from flows.dvc import lock_backups
from flows.project import Project
from flows.purge import step as purging
from flows.requests.quarantine import refresh
from flows.run.build import drop_drafts
from lmeraser.core.digest import sha256_of_file
from lmeraser.core.errors import ProjectError, StepFailedError, VerificationError
from lmeraser.core.progress import say
from lmeraser.erase.batches import BatchRecord, Ground
from lmeraser.erase.erased import ErasedList, corrections_among, images_among, people_among
from lmeraser.erase.ledger import Claim
from lmeraser.erase.requests import Request
from lmeraser.erase.states import reached
from lmeraser.pipeline.locks import digest_of_locks

ERASED = "data/erased.json"
MADE = ("artifacts/", "metrics/")  # what the pipeline itself writes


def current(project: Project) -> Ground:
    """The ground that the working tree shows now."""
    listed = project.layout.erased
    return Ground(digest_of_locks(project.layout.root), sha256_of_file(listed) if listed.exists() else "")


def record(project: Project, batch: BatchRecord) -> BatchRecord:
    """The batch, standing on what the working tree shows now."""
    return replace(batch, ground=current(project))


def require_ground(project: Project, batch: BatchRecord) -> None:
    """Raise StepFailedError if locks or list are not those that were verified: nothing is destroyed or signed on old evidence."""
    if batch.ground != current(project):
        raise StepFailedError(
            "the locks or data/erased.json changed after the checks (git or dvc, by somebody else); run `lmeraser resume`, which "
            "makes the checks again"
        )


def is_outdated(project: Project, batch: BatchRecord) -> bool:
    """Whether the locks are not those that a batch was planned on."""
    return batch.ground is not None and batch.ground.locks != current(project).locks


def everybody(requests: Sequence[Request]) -> set[str]:
    return {name for request in requests for name in request.pseudonyms}


def counted(pseudonyms: Iterable[str]) -> str:
    """`2 people`, or `2 people, 1 images, 1 corrections`."""
    named = set(pseudonyms)
    others = {"images": len(images_among(named)), "corrections": len(corrections_among(named))}
    return ", ".join([f"{len(people_among(named))} people", *(f"{count} {kind}" for kind, count in others.items() if count)])


def ever_erased(project: Project) -> set[str]:
    """Everybody whom this machine's memory or the ledger says to be erased, or about to be."""
    begun = [request for request in project.ledger.all() if reached(request.reached, "removed")]
    return everybody(begun) | ErasedList.remembered(project.layout).pseudonyms


def missing_from_branch(project: Project) -> int:
    """How many people were erased here whom the checked out data/erased.json does not list."""
    erased = ever_erased(project)
    return len(erased - ErasedList.read(project.layout.erased).pseudonyms) if erased else 0


def keep_list(project: Project) -> None:
    """Put people back on the list in git who were erased here: another branch, or a reset, took them off."""
    missing = missing_from_branch(project)
    if missing:
        keep_out(project, [])
        say(f"data/erased.json lacked {missing} people who were erased here; they are on it again, and stay out")


def keep_out(project: Project, requests: Sequence[Request]) -> bool:
    """Put everybody of the requests on the list, and everybody whom this machine ever erased.

    Returns: whether the list in git lacked somebody.
    """
    wanted = everybody(requests) | ever_erased(project)
    lacking = not wanted <= ErasedList.read(project.layout.erased).pseudonyms
    if wanted:
        project.erased.add(wanted, project.subject_key()).keep(project.layout)
    return lacking


def _is_own(reason: Any, source: str | None) -> bool:
    """Whether a reason why a stage is stale follows from the batch itself: the list, or what another stage made of it."""
    if not isinstance(reason, dict):
        return False
    places = [place for kind in ("changed deps", "changed outs") for place in reason.get(kind, {})]
    return all(place in (ERASED, source) or f"{place}/".startswith(MADE) for place in places)


def foreign_changes(stale: dict[str, Any], source: str | None = None) -> list[str]:
    """The stale stages of which something changed that no erasure changes: source, params, code.

    Args: stale: as `dvc status --json` tells; source: the source's path, if the batch itself cleared it.
    """
    return sorted(stage for stage, reasons in stale.items() if not all(_is_own(reason, source) for reason in reasons))


def require_own_changes(stale: dict[str, Any], source: str | None = None) -> None:
    """Raise ProjectError, with both ways out, if the source, params or code changed since the request was planned."""
    foreign = foreign_changes(stale, source)
    if foreign:
        names = ", ".join(foreign[:4]) + (" …" if len(foreign) > 4 else "")
        raise ProjectError(
            f"the source, params.yaml or the code changed since the request was planned ({len(foreign)} stages: {names}); undo "
            "that, or run `dvc repro` to take it in, then `lmeraser resume`"
        )


def _only_files_differ(stale: dict[str, Any]) -> bool:
    """Whether files are missing or changed while nothing that they are made of did."""
    reasons = [reason for reasons_of_stage in stale.values() for reason in reasons_of_stage if isinstance(reason, dict)]
    made = any("changed outs" in reason for reason in reasons)
    return made and not any(ERASED in reason.get("changed deps", {}) for reason in reasons)


def source_of(project: Project, batch: BatchRecord) -> str | None:
    """The source's path as dvc.yaml names it, if this batch began to clear it."""
    return project.params.source.path if batch.source_rows is not None else None


def realign(
    project: Project, batch: BatchRecord, requests: Sequence[Request], claim: Claim, by_person: bool = False
) -> BatchRecord:
    """Let the ledger say of a batch what the working tree shows, before a step trusts it. Returns the batch as it stands then.

    Args: by_person: somebody read why the last try failed, and lets what was not planned stand.
    Raises: ProjectError if something changed that is not the batch's to decide.
    """
    started = [request for request in requests if reached(request.reached, "removed")]
    if not started:
        return batch
    if batch.unplanned and by_person and not batch.moved:
        batch = replace(batch, moved=True)
        project.ledger.save_batch(batch, claim)
    remake = batch.mixed  # what was retrained is of another environment: this one may be the right one
    lacked = keep_out(project, requests)
    stands = not lacked and not remake and batch.ground == current(project)
    retrained = all(reached(request.reached, "retrained") for request in started)
    if stands and not retrained:
        return batch
    lock_backups.mend(project.layout, batch.batch_id)  # a kill may have left one empty, and DVC reads none then
    drop_drafts(project.layout)
    stale = dvc.status(project.layout)
    if stands and source_of(project, batch) and any("changed outs" in reason for reason in stale.get("split", ())):
        # Killed while `split` ran again on the shorter source: DVC deletes a stage's outs before it runs it.
        dvc.run(project.layout, "checkout", "--quiet", "--force", "split")
        stale = dvc.status(project.layout)
    require_own_changes(stale, source_of(project, batch))
    if _only_files_differ(stale) and retrained:
        raise ProjectError(
            f"files that the pipeline made are missing or changed ({len(stale)} stages); run `dvc checkout`, or `dvc repro` "
            "where that finds none, then `lmeraser resume`"
        )
    if stands:
        return batch  # nothing that anybody edited since would make another model than the one that is being signed
    ids = [request.request_id for request in started if reached(request.reached, "retrained")]
    if not ids:
        return replace(batch, mixed=False)  # killed in the middle of the retraining, which is taken up again
    if not remake:
        say("the working tree is not the one that the last step left (git or dvc, by somebody else); what it undid is done again")
    batch = replace(batch, mixed=False, moved=batch.moved or not remake)
    project.ledger.save_batch(batch, claim)
    purging.retire_journal(project.layout, batch.batch_id)
    if stale:
        lock_backups.drop(project.layout, batch.batch_id)  # copies of another state
    refresh(project, accepting=ids)  # before the ledger says that they are to be left out again: a kill may come between
    project.ledger.set_back(ids, "removed" if stale or remake else "retrained", claim)
    return batch


def require_key(project: Project, requests: Sequence[Request]) -> None:
    """Raise ProjectError unless the subject key is the one by which the requests name their people: another finds nobody."""
    key = project.subject_key().id
    for request in requests:
        for event in project.ledger.events(request.request_id):
            if event.kind == "validated" and event.data.get("key", key) != key:
                raise ProjectError(
                    "the subject key is not the one that the request was accepted with; restore that from your backup"
                )


def require_listed(project: Project, requests: Sequence[Request]) -> None:
    """Raise VerificationError unless the list in git names everybody of the requests."""
    if not everybody(requests) <= ErasedList.read(project.layout.erased).pseudonyms:
        raise VerificationError("data/erased.json does not list everybody of the request; `lmeraser resume` puts them back")
