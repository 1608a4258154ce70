"""A request comes in: committed to the ledger before it is acknowledged, then validated, then in effect at once.

None of this waits for an erasure that is being carried out.
"""

from collections.abc import Sequence
from typing import Any

from flows import dvc
from flows.project import Project
from flows.quarantine import named, refresh, solve, whole_layout
from lmeraser.core.errors import BadInputError, BlockedError, LmeraserError, RequestError
from lmeraser.core.params import load_params
from lmeraser.core.progress import say
from lmeraser.erase.erased import SubjectKey, load_key
from lmeraser.erase.facts import check_known, gather_facts, normalise_subjects
from lmeraser.erase.plan import Facts, Plan, make_plan
from lmeraser.erase.requests import Request, check_request_id
from lmeraser.erase.states import BLOCKED, REJECTED


def draft_plan(project: Project, subjects: Sequence[str], include_public: bool) -> Plan:
    """What erasing the subjects would touch. Changes nothing. Raises: BadInputError, BlockedError."""
    params = project.params  # checked before anything else: a misspelt param must not look like a stale pipeline
    names = normalise_subjects(subjects)
    layout = whole_layout(project)
    if layout == project.layout:
        dvc.require_current(layout)
    facts = gather_facts(layout, params)
    # Without a key file nobody can be on the list; a plan must not create one.
    key = load_key(project.key_file) if project.erased.pseudonyms else SubjectKey(b"\0" * 32)
    check_known(names, facts, project.erased, key)
    return make_plan(names, facts, include_public)


def receive(project: Project, subjects: Sequence[str], request_id: str | None, include_public: bool) -> Request:
    """Commit a request to the ledger, or recognise it: the same id twice has one effect.

    Raises: RequestError, without a trace, if it is malformed or its id is about other subjects.
    """
    params = project.params
    identity = check_request_id(request_id)
    if not subjects and request_id is not None:
        return project.ledger.get(identity)
    names = normalise_subjects(subjects)
    dvc.require_built(project.layout)
    key = project.key()
    request, _ = project.ledger.receive(
        identity, [key.pseudonym(name) for name in names], include_public, params.service.due_days
    )
    return request


def validate(project: Project, request: Request, subjects: Sequence[str] = ()) -> Request:
    """Decide whether a received request can be carried out: then it is validated, else rejected or blocked.

    Args: subjects: in the order in which they were given, so that a refusal can name a position.
    Raises: ProjectError if the pipeline is not up to date, so that nobody can tell; the request stays received.
    """
    if request.state != "received":
        return request
    layout = whole_layout(project)
    facts = gather_facts(layout, load_params(layout.params))
    key = project.key()
    names = normalise_subjects(subjects) if subjects else named(project, facts, request.pseudonyms)
    try:
        try:
            _check(project, request, facts, names)
        except RequestError:
            # A source that was not built yet may hold them: then nobody can say that they are unknown.
            if layout == project.layout:
                dvc.require_current(layout)
            raise
        plan = make_plan(names, facts, request.include_public)
    except BlockedError as error:
        project.ledger.move([request.request_id], BLOCKED, reason=str(error))
    except RequestError as error:
        project.ledger.move([request.request_id], REJECTED, reason=str(error))
    else:
        project.ledger.move([request.request_id], "validated", note={"plan": plan.to_json(), "key": key.id})
    return project.ledger.get(request.request_id)


def _check(project: Project, request: Request, facts: Facts, names: list[str]) -> None:
    key = project.key()
    project.erased.check_key(key)
    check_known(names, facts, project.erased, key)
    if len(names) < len(request.pseudonyms):
        gone = sum(one in project.erased.pseudonyms for one in request.pseudonyms)
        unknown = len(request.pseudonyms) - len(names) - gone
        if unknown:
            raise RequestError(f"{unknown} of {len(request.pseudonyms)} subjects are unknown: no record has them")
        raise RequestError(f"{gone} of {len(request.pseudonyms)} subjects are already erased; send the others alone")


def take_effect(project: Project, request: Request, solved: bool = True) -> Request:
    """Put a validated (or approved) request in effect: what its people influenced is out of the served model.

    Args: solved: also solve the global head without them now; else it is withheld until the retraining begins.
    """
    if request.state not in ("validated", "approved") or needs_approval(project, request):
        return request
    folder = refresh(project, accepting=[request.request_id])
    project.ledger.move([request.request_id], "quarantined")
    if folder and solved:
        try:
            solve(project, folder)
        except LmeraserError as error:
            say(f"quarantine: the global head stays withheld until the retraining: {error}")
    return project.ledger.get(request.request_id)


def needs_approval(project: Project, request: Request) -> bool:
    return project.params.service.approval and request.state == "validated"


def approve(project: Project, request_id: str, by: str) -> Request:
    """Record who approved a request, and put it in effect."""
    who = " ".join(by.split())
    if not 1 <= len(who) <= 200 or not who.isprintable():
        raise BadInputError("--by holds no name; give 1 to 200 printable characters")
    project.ledger.approve(request_id, who)
    return take_effect(project, project.ledger.get(request_id))


def refuse(request: Request) -> None:
    """Raise RequestError or BlockedError with the reason if a request was refused."""
    if request.state == REJECTED:
        raise RequestError(request.reason or "the request is rejected")
    if request.state == BLOCKED:
        raise BlockedError(f"{request.reason or 'it is blocked'}; that is request {request.request_id}")


def accept(project: Project, request: Request, subjects: Sequence[str] = (), solved: bool = True) -> Request:
    """Validate a received request and put it in effect. Raises: RequestError or BlockedError with the reason if refused."""
    request = take_effect(project, validate(project, request, subjects), solved)
    refuse(request)
    return request


def plan_of(project: Project, request: Request) -> dict[str, Any] | None:
    """What carrying out the request alone touches, as it was planned last."""
    if request.batch_id:
        plans: dict[str, Any] = project.ledger.get_batch(request.batch_id).facts["plans"]
        found: dict[str, Any] = plans[request.request_id]
        return found
    notes = [event.data for event in project.ledger.events(request.request_id) if event.kind == "validated"]
    return notes[-1].get("plan") if notes else None
