"""A request comes in: committed to the ledger before it is acknowledged, then validated, then in effect at once.

None of this waits for an erasure that is being carried out.
"""

from collections.abc import Sequence
from typing import NamedTuple

from flows.dvc import command as dvc
from flows.project import Project
from flows.requests.corrections import check_corrections
from flows.requests.quarantine import refresh, solve_if_possible, whole_layout
from flows.requests.repeats import repeats_of
from flows.run.moves import placer_of, roster_of
from lmeraser.core.errors import BadInputError, BlockedError, ProjectError, RequestError, UnknownSubjectError
from lmeraser.core.layout import Layout
from lmeraser.erase.corrections import Correction
from lmeraser.erase.erased import ErasedList, SubjectKey, images_among, load_key, people_among
from lmeraser.erase.facts import check_images, check_known, gather_facts, normalise_subjects
from lmeraser.erase.plan import Plan, make_plan
from lmeraser.erase.requests import MAX_SUBJECTS, Request, check_request_id
from lmeraser.erase.roster import Roster
from lmeraser.erase.states import BLOCKED, PROPOSED, REJECTED, reached
from lmeraser.sources import check_untracked

TOGETHER = "together"  # kept with the event of a request that was set aside: alone it can be carried out


def draft_plan(project: Project, subjects: Sequence[str], include_public: bool, images: Sequence[str] = ()) -> Plan:
    """What erasing the subjects and images would touch. Changes nothing. Args: images: digests.

    Raises: BadInputError, BlockedError.
    """
    params = project.params  # checked before anything else: a misspelt param must not look like a stale pipeline
    names = normalise_subjects(subjects) if subjects or not images else []
    layout = whole_layout(project)
    if layout == project.layout:
        dvc.require_current(layout)
    facts = gather_facts(layout, params)
    # Without a key file nobody can be on the list; a plan must not create one.
    key = load_key(project.key_file) if project.erased.pseudonyms else SubjectKey(b"\0" * 32)
    check_known(names, facts, project.erased, key)
    check_images(images, facts, project.erased, key)
    return make_plan(names, facts, include_public, images, placer_of(project, layout))


def receive(
    project: Project,
    subjects: Sequence[str],
    request_id: str | None,
    include_public: bool,
    images: Sequence[str] = (),
    corrections: Sequence[Correction] = (),
) -> Request:
    """Commit a request to the ledger, or recognise it: the same id twice has one effect.

    Args: images: digests of images to be erased, whoever's they are; corrections: of records, with nobody to be erased.
    Raises: RequestError, without a trace, if it is malformed or its id is about other subjects.
    """
    params = project.params
    identity = check_request_id(request_id)
    if not subjects and not images and not corrections and request_id is not None:
        return project.ledger.get(identity)
    names = normalise_subjects(subjects) if subjects or not (images or corrections) else []
    if len(names) + len(images) + len(corrections) > MAX_SUBJECTS:
        raise RequestError(
            f"{len(names)} subjects and {len(images) + len(corrections)} images, expected at most {MAX_SUBJECTS} in one request; "
            "split it"
        )
    dvc.require_built(project.layout)
    check_untracked(params.source, project.layout.root)
    key = project.ensure_subject_key()
    pseudonyms = [*map(key.pseudonym, names), *map(key.image_pseudonym, images), *(each.pseudonym for each in corrections)]
    request, _ = project.ledger.receive(identity, pseudonyms, include_public, params.service.due_days)
    return request


def validate(project: Project, request: Request, subjects: Sequence[str] = (), images: Sequence[str] = ()) -> Request:
    """Decide whether a received request can be carried out: then it is validated, else rejected or blocked.

    It is looked at alone, and together with all that is open: those came first, and must not fail because of it.
    Args: subjects, images: in the order in which they were given, so that a refusal can name a position.
    Raises: ProjectError if the pipeline is not up to date, so that nobody can tell; the request stays received.
    """
    if request.state != "received":
        return request
    layout = whole_layout(project)
    roster = roster_of(project, layout)
    names = normalise_subjects(subjects) if subjects else roster.named(request.pseudonyms)
    digests = list(dict.fromkeys(images)) or roster.images(request.pseudonyms)
    move = project.ledger.move
    try:
        if project.ledger.events(request.request_id, kinds=(PROPOSED,)):
            _check_proposed(project, request)
        elif repeats_of(project, request.request_id) is None:  # else its people are on the list, and may be back in a store alone
            _check(project, request, roster, Named(names, digests), layout)
        plan = roster.plan(request.pseudonyms, request.include_public)
        _check_size(project, request, plan)
    except BlockedError as error:
        move([request.request_id], BLOCKED, reason=str(error))
    except RequestError as error:
        move([request.request_id], REJECTED, reason=str(error))
    else:
        obstacle = _obstacle(roster, [*_ahead(project, request), request])
        if obstacle:
            set_aside(project, request, obstacle)
        else:
            move([request.request_id], "validated", note={"plan": plan.to_json(), "key": project.subject_key().id})
    return project.ledger.get(request.request_id)


class Named(NamedTuple):
    """What a request names, in clear, as far as it is known. Attributes: images: digests."""

    subjects: Sequence[str]
    images: Sequence[str]


def _check_proposed(project: Project, request: Request) -> None:
    """Raise RequestError if all that was proposed is erased meanwhile.

    It was known when it was proposed. By now the source may have lost it and a build have followed; it must leave the stores all
    the same.
    """
    erased = project.erased
    erased.check_key(project.subject_key())
    if repeats_of(project, request.request_id) is None and erased.pseudonyms.issuperset(request.pseudonyms):
        raise RequestError("all of it is already erased; nothing is left to do (`lmeraser status` lists the requests)")


def _check(project: Project, request: Request, roster: Roster, named: Named, layout: Layout) -> None:
    """Raise RequestError if subjects, images or old values are unknown or erased; ProjectError while nobody can tell."""
    key, facts = project.subject_key(), roster.facts
    project.erased.check_key(key)
    try:
        check_known(named.subjects, facts, project.erased, key)
        check_images(named.images, facts, project.erased, key)
        _check_all(len(named.subjects), people_among(request.pseudonyms), project.erased, "subjects")
        _check_all(len(named.images), images_among(request.pseudonyms), project.erased, "images")
        check_corrections(project, request, facts, key)
    except UnknownSubjectError:
        _require_unknown_everywhere(project, request, layout)
        raise


def _check_all(known: int, pseudonyms: frozenset[str], erased: ErasedList, kind: str) -> None:
    """Raise RequestError if some are unknown or erased. Args: known: of how many there is a record; kind: as people say it."""
    if known < len(pseudonyms):
        gone = len(erased.pseudonyms & pseudonyms)
        unknown = len(pseudonyms) - known - gone
        if unknown:
            raise UnknownSubjectError(f"{unknown} of {len(pseudonyms)} {kind} are unknown: no record has them")
        raise RequestError(f"{gone} of {len(pseudonyms)} {kind} are already erased; send the others alone")


def _require_unknown_everywhere(project: Project, request: Request, layout: Layout) -> None:
    """Raise ProjectError if those whom the served copy does not know may be in the workspace, or in a source not built yet."""
    try:
        dvc.require_current(project.layout)
    except ProjectError as error:
        if any(reached(other.reached, "removed") for other in project.ledger.all(open_only=True)):
            raise ProjectError(
                "no record of the model that is served has these people, and an erasure is under way; the request is kept, and "
                "looked at again once that is done (`lmeraser resume` or a server's sweep)"
            ) from error
        raise
    if layout == project.layout:
        return
    workspace = project.roster(project.layout)
    if any(ask(request.pseudonyms) for ask in (workspace.named, workspace.images, workspace.old_ids)):
        raise ProjectError(
            "people of this request joined after the model that is served; it is kept, and taken up when the open requests are "
            "done (`lmeraser resume`)"
        )


def _check_size(project: Project, request: Request, plan: Plan) -> None:
    """Raise RequestError if the request's certificate would be larger than a verifier reads, before anything is destroyed."""
    from lmeraser.prove.certificate import largest
    from lmeraser.prove.verify import MAX_BYTES

    size = largest(len(request.pseudonyms), len(project.params.slots), len(project.params.parts))
    if size > MAX_BYTES:
        raise RequestError(
            f"the certificate of {plan.subjects} people over {len(project.params.slots)} slots would have {size:,} bytes, "
            f"expected at most {MAX_BYTES:,}; put fewer people into one request"
        )


def _ahead(project: Project, request: Request) -> list[Request]:
    """Requests that were accepted and whose records may still be there."""
    return [
        other
        for other in project.ledger.all(open_only=True)
        if other.request_id != request.request_id
        and other.state not in ("received", BLOCKED)  # a hold may last for months, and must not keep others from being accepted
        and not reached(other.reached, "retrained")
    ]


def _obstacle(roster: Roster, together: Sequence[Request]) -> str | None:
    """Why requests cannot be carried out together; None if they can."""
    everybody = {pseudonym for request in together for pseudonym in request.pseudonyms}
    try:
        roster.plan(everybody, any(request.include_public for request in together))
    except (RequestError, BlockedError) as error:
        return str(error)
    return None


def set_aside(project: Project, request: Request, obstacle: str) -> None:
    """Block a request that would keep others from being carried out, with the reason; it leaves the quarantine if it was in."""
    project.ledger.move(
        [request.request_id],
        BLOCKED,
        note={"why": TOGETHER},
        reason=f"set aside, so that others go on: {obstacle}; `lmeraser resume` looks again, `lmeraser cancel` ends it",
    )
    if reached(request.reached, "quarantined"):
        refresh(project)


def divide(roster: Roster, requests: Sequence[Request]) -> tuple[list[Request], list[tuple[Request, str]]]:
    """Which of the requests, in their order, can be carried out together; and the others, each with its obstacle."""
    fit: list[Request] = []
    culprits: list[tuple[Request, str]] = []
    for request in requests:
        obstacle = _obstacle(roster, [request]) or _obstacle(roster, [*fit, request])
        if obstacle:
            culprits.append((request, obstacle))
        else:
            fit.append(request)
    return fit, culprits


def take_up_again(project: Project) -> None:
    """Look once more at requests that were set aside: the others may be done, or records were added."""
    for request in project.ledger.all():
        if request.state == BLOCKED and _was_set_aside(project, request):
            roster = roster_of(project, whole_layout(project))
            if not _obstacle(roster, [*_ahead(project, request), request]):
                project.ledger.receive_again(request.request_id)


def _was_set_aside(project: Project, request: Request) -> bool:
    blocked = [event.data for event in project.ledger.events(request.request_id) if event.kind == BLOCKED]
    return bool(blocked) and blocked[-1].get("why") == TOGETHER


def cancel(project: Project, request_id: str, by: str = "the operator", only: str | None = None) -> Request:
    """End a request for which nothing was done yet. Args: only: in this state. Raises: RequestError if something was."""
    project.ledger.cancel(request_id, by, only)
    refresh(project)
    return project.ledger.get(request_id)


def take_effect(project: Project, request: Request, solved: bool = True) -> Request:
    """Put a validated (or approved) request in effect: what its people influenced is out of the served model.

    Its grace begins, if `service.grace_s` gives one; a hold on it, or on a person of it, blocks it.
    Args: solved: also solve the global head without them now; else it is withheld until the retraining begins.
    """
    if request.state not in ("validated", "approved") or needs_approval(project, request):
        return request
    folder = refresh(project, accepting=[request.request_id])
    _in_effect(project, [request.request_id])
    solve_if_possible(project, folder if solved else None)
    return project.ledger.get(request.request_id)


def accept_all(project: Project, requests: Sequence[Request], solved: bool = True) -> None:
    """Validate received requests and put in effect, at once, all that are valid and wait for no approval.

    Args: solved: as of `take_effect`.
    Raises: ProjectError if nobody can tell of one whether it is valid; the others are in effect, and it stays received.
    """
    problem: ProjectError | None = None
    ready: list[str] = []
    for request in requests:
        try:
            validated = validate(project, request)
        except ProjectError as error:
            problem = error
            continue
        if validated.state in ("validated", "approved") and not needs_approval(project, validated):
            ready.append(validated.request_id)
    if ready:
        folder = refresh(project, accepting=ready)
        _in_effect(project, ready)
        solve_if_possible(project, folder if solved else None)
    if problem:
        raise problem


def _in_effect(project: Project, ids: Sequence[str]) -> None:
    """Note that requests are in effect; they are carried out once their grace is over, and what is held is not."""
    ledger, grace = project.ledger, project.params.service.grace_s
    ledger.move(list(ids), "quarantined", ready_at=ledger.time() + grace if grace else None)
    ledger.settle_holds()


def needs_approval(project: Project, request: Request) -> bool:
    """What repeats erasures needs no second yes."""
    waits = project.params.service.approval and request.state == "validated"
    return waits and repeats_of(project, request.request_id) is None


def approve(project: Project, request_id: str, by: str, solved: bool = True) -> Request:
    """Record who approved a request, and put it in effect. Args: solved: as of `take_effect`."""
    project.ledger.approve(request_id, approver(by))
    return take_effect(project, project.ledger.get(request_id), solved)


def approver(by: str) -> str:
    """Who approves, in one line. Raises: BadInputError."""
    who = " ".join(by.split())
    if not 1 <= len(who) <= 200 or not who.isprintable():
        raise BadInputError("--by holds no name; give 1 to 200 printable characters")
    return who


def refuse(request: Request) -> None:
    """Raise RequestError or BlockedError with the reason if a request was refused."""
    if request.state == REJECTED:
        raise RequestError(request.reason or "the request is rejected")
    if request.state == BLOCKED:
        raise BlockedError(f"{request.reason or 'it is blocked'}; that is request {request.request_id}")


def accept(
    project: Project, request: Request, subjects: Sequence[str] = (), solved: bool = True, images: Sequence[str] = ()
) -> Request:
    """Validate a received request and put it in effect. Raises: RequestError or BlockedError with the reason if refused."""
    request = take_effect(project, validate(project, request, subjects, images), solved)
    refuse(request)
    return request


def plan_of(project: Project, request: Request) -> Plan | None:
    """What carrying out the request alone touches, as it was planned last."""
    if request.batch_id:
        return project.ledger.get_batch(request.batch_id).plans[request.request_id]
    notes = [event.data for event in project.ledger.events(request.request_id) if event.kind == "validated"]
    noted = notes[-1].get("plan") if notes else None
    return Plan.from_json(noted) if noted else None
