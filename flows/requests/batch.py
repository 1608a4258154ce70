"""A batch: requests that are carried out together. It is formed by one plan, its people are removed from what may be learnt from,
and what it kept for a crash is discarded when it is done."""

from collections.abc import Sequence

from flows.dvc import command as dvc
from flows.dvc import lock_backups
from flows.project import Project
from flows.purge import step as purging
from flows.requests import ground
from flows.requests.intake import divide, set_aside
from flows.requests.work import Done, Work
from flows.run import before
from flows.run.moves import roster_of
from lmeraser.core.errors import BlockedError, StepFailedError
from lmeraser.core.progress import say
from lmeraser.erase.batches import BatchRecord
from lmeraser.erase.erased import corrections_among, images_among
from lmeraser.erase.ledger import Claim
from lmeraser.erase.requests import Request
from lmeraser.erase.retained import files_holding
from lmeraser.learn.same_environment import require_same_environment
from lmeraser.pipeline.locks import read_outs
from lmeraser.prove.search_terms import SearchTerms
from lmeraser.sources import check_source


def _refuse_unknown_early(project: Project) -> None:
    """As the purge does, before anything is retrained. A store that is away keeps nobody in the model: the purge asks it."""
    try:
        purging.refuse_unknown(purging.unknown_in_remotes(project.layout), project.accepts_unknown)
    except StepFailedError as error:
        say(f"what remotes hold is looked at before the purge: {error}")


def form(project: Project, claim: Claim, requests: Sequence[Request]) -> tuple[BatchRecord, tuple[str, ...]]:
    """Plan requests together: what several of them touch is retrained once.

    Returns: the batch, and the ids of its requests. Who would keep the others from it is set aside with the reason.
    Raises: BadInputError if nothing can be planned, BlockedError or RequestError if all were set aside.
    """
    dvc.require_current(project.layout)
    ground.require_key(project, requests)
    require_same_environment(project.layout, project.params)
    # Before anything is destroyed: a source that cannot be cleared, and a remote of a kind that purge cannot clear.
    check_source(project.params.source, project.layout.root)
    _refuse_unknown_early(project)
    roster = roster_of(project, project.layout)
    fitting, culprits = divide(roster, requests)
    for request, obstacle in culprits:
        set_aside(project, request, obstacle)
        say(f"request {request.request_id} was set aside, the others go on: {obstacle}")
    if not fitting:
        raise BlockedError(f"request {culprits[0][0].request_id} is blocked: {culprits[0][1]}")
    accepted, everybody = any(request.include_public for request in fitting), ground.everybody(fitting)
    batch = BatchRecord(
        plan=roster.plan(everybody, accepted),
        before=read_outs(project.layout.lock),
        plans={request.request_id: roster.plan(request.pseudonyms, request.include_public) for request in fitting},
        holding=files_holding(
            project.layout, project.params, roster.named(everybody), roster.images(everybody), roster.old_ids(everybody)
        ),
        arriving=tuple(roster.arriving(everybody)),
        ground=ground.current(project),
        unknown_accepted=project.accepts_unknown,
    )
    project.drop_roster()  # what it tells is about to change, and retraining needs the memory
    ids = tuple(request.request_id for request in fitting)
    return project.ledger.open_batch(claim, ids, batch), ids


def remove(work: Work) -> Done:
    """Put the subjects and images on the lists that keep them out for ever."""
    ground.require_key(work.project, work.requests)
    _note_terms(work)
    ground.keep_out(work.project, work.requests)
    return Done(work.batch)


def _note_terms(work: Work) -> None:
    """Keep the digests of the batch's images, and the ids of records with old values, beside what its scan looks for, while
    records tell them: lists and ledger hold keyed hashes, by which the purge could find them only in what it reads whole."""
    project, layout, everybody = work.project, work.project.layout, ground.everybody(work.requests)
    told = images_among(everybody) or corrections_among(everybody)
    if not told or purging.kept_search_terms(layout, work.batch.batch_id):
        return
    roster = project.roster(layout)
    terms = SearchTerms(ids=frozenset(roster.old_ids(everybody)), texts=frozenset(roster.images(everybody)))
    project.drop_roster()
    purging.keep_search_terms(layout, work.batch.batch_id, terms)


def discard(work: Work) -> None:
    """Drop what a finished batch kept for a crash."""
    lock_backups.drop(work.project.layout, work.batch.batch_id)
    before.drop(work.project.layout, work.batch.batch_id)
