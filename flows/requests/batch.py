"""A batch: requests that are carried out together. It is formed by one plan, its people are removed from what may be learnt from,
and what it kept for a crash is discarded when it is done."""

from dataclasses import asdict

from flows.dvc import command as dvc
from flows.dvc import lock_backups
from flows.project import Project
from flows.purge import plan as purging
from flows.requests import ground
from flows.requests.intake import divide, set_aside
from flows.requests.quarantine import named
from lmeraser.core.errors import BlockedError, StepFailedError
from lmeraser.core.progress import say
from lmeraser.erase.facts import gather_facts
from lmeraser.erase.ledger import Claim
from lmeraser.erase.plan import make_plan
from lmeraser.erase.requests import Batch, Request
from lmeraser.learn.same_environment import require_same_environment
from lmeraser.pipeline.locks import read_outs
from lmeraser.sources import check_source


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
    ground.require_key(project, requests)
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
    ground.require_key(project, requests)
    ground.keep_out(project, requests)


def discard(project: Project, batch: Batch) -> None:
    """Drop what a finished batch kept for a crash."""
    lock_backups.drop(project.layout, batch.batch_id)
