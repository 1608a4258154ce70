"""What a client asks of requests: OpenDSR's erasures come in, are in effect, are told and are cancelled.

Requests of our other kinds (`kinds`) come in by the same way, from `receive` on.
"""

from collections.abc import Callable
from functools import partial

from fastapi import Request as HttpRequest
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from flows.door import addresses, opendsr, outbox
from flows.door.answers import NO_STORE, RefusedError, signed
from flows.door.guard import Door, whole_body
from flows.door.opendsr import Erasure
from flows.door.tokens import AUDIT, READ, Client
from flows.project import Project
from flows.requests import intake, pauses
from flows.requests.intake import Named
from flows.requests.quarantine import solve_newest
from flows.service.client import announce
from lmeraser.core.errors import BlockedError, LmeraserError, RequestError
from lmeraser.core.progress import say
from lmeraser.erase.facts import normalise_subjects
from lmeraser.erase.requests import Request
from lmeraser.erase.states import CERTIFIED, status

IN_USE = "this subject_request_id is in use; nothing was done: send the request again with a new id"
OTHER = (
    "this subject_request_id was received for another identity, or for a request of another kind; nothing was done: send a new "
    "id for a new request"
)
ONLY = "only a pending one, or one within its grace, can be cancelled"
NOBODY = Named((), ())


def own_request(door: Door, client: Client, request_id: str, everybody_s: bool) -> tuple[Request, str]:
    """A request and its controller's name. Raises: RefusedError, the same whether it is another's or nobody's."""
    identity = opendsr.check_id(request_id)
    owner = outbox.owner(door.store, identity)
    request = door.home.ledger.find(identity)
    if request is None or not (everybody_s or owner == client.name):
        raise RefusedError(404, "no request of yours has this id")
    return request, owner or opendsr.OPERATOR


# Submitting


async def _check_callbacks(door: Door, client: Client, erasure: Erasure) -> None:
    """Raise RefusedError or RequestError unless every callback may be kept and called."""
    if erasure.callbacks and READ not in client.scopes:  # a callback tells what only `read` may see
        raise RefusedError(403, "status_callback_urls need the scope read beside submit; leave them out, or use another token")
    for url in erasure.callbacks:
        if addresses.names(url, erasure.subject):
            raise RequestError(
                "a callback's address holds the person's identity, and would be stored; name the request's id instead"
            )
        await addresses.check(url, door.resolver, door.open_http)


def receive(door: Door, client: Client, request_id: str, commit: Callable[[Project], Request]) -> Request:
    """Commit a request to the ledger, or recognise it. Args: commit: does it, and raises RequestError if it cannot.

    Raises: RefusedError if its id is another's, or about something else; RequestError.
    """
    project = door.now()
    known = project.ledger.find(request_id)
    if known is not None and outbox.owner(door.store, request_id) is None:  # it came by the command line
        raise RefusedError(409, IN_USE)
    if not outbox.claim(door.store, request_id, client.name):
        raise RefusedError(409, IN_USE)
    try:
        return commit(project)
    except RequestError as error:
        if known is not None or project.ledger.find(request_id) is not None:
            raise RefusedError(409, OTHER) from error
        raise


def _receive_erasure(door: Door, client: Client, erasure: Erasure) -> Request:
    subjects = normalise_subjects([erasure.subject])
    request = receive(
        door, client, erasure.request_id, lambda project: intake.receive(project, subjects, erasure.request_id, False)
    )
    if erasure.callbacks:
        first = door.home.ledger.events(erasure.request_id)[0].seq
        outbox.subscribe(door.store, erasure.request_id, erasure.callbacks, first - 1)
    return request


def take_effect(door: Door, request: Request, named: Named = NOBODY) -> None:
    """Validated, and in effect at once, as `lmeraser submit` does it. That it is refused is its state, and not told here.

    Whatever happens: the request is in the ledger, and its acknowledgement is true.
    """
    try:
        door.alone(lambda project: intake.accept(project, request, named.subjects, solved=False, images=named.images))
    except (RequestError, BlockedError):
        return
    except LmeraserError as error:
        say(f"door: request {request.request_id} is received, and not in effect yet: {error}")
    except Exception as error:  # (also a full disk, or others that took too long)
        say(f"door: {type(error).__name__} after a request was received; it is taken up again within a minute")
        return
    announce(door.home.layout, request.request_id)


def take_up(door: Door) -> None:
    """Put in effect what was received before and could not be then."""
    waiting = [request for request in door.home.ledger.all(open_only=True) if request.state == "received"]
    for request in waiting:
        take_effect(door, request)
    if waiting:
        solve_head(door)


def solve_head(door: Door) -> None:
    """Let the global head answer again, without the people who are in quarantine: it needs a second, and nobody waits for it."""
    if not door.queued.acquire(blocking=False):
        return  # somebody waits to solve it already, and will solve the newest
    with door.solving:
        door.queued.release()
        try:
            solve_newest(door.home)
        except LmeraserError as error:
            say(f"door: the global head stays withheld until the retraining: {error}")


async def submit(door: Door, client: Client, http: HttpRequest, _: str) -> Response:
    body = await whole_body(http)
    erasure = opendsr.read_request(body, door.clock())
    await _check_callbacks(door, client, erasure)
    request = await run_in_threadpool(_receive_erasure, door, client, erasure)
    await let_take_effect(door, client, request, Named([erasure.subject], ()))
    return signed(door.signer, 201, opendsr.received(request, client.name, body))


async def let_take_effect(door: Door, client: Client, request: Request, named: Named = NOBODY) -> None:
    """Put a request in effect, before the answer where the client may read it. Args: named: what it names, in clear."""
    if READ in client.scopes:
        await run_in_threadpool(take_effect, door, request, named)
        door.later(partial(solve_head, door))
    else:  # how long it takes tells whether the person is known: such a client does not wait for it
        door.later(partial(_effect_then_head, door, request, named))


def _effect_then_head(door: Door, request: Request, named: Named) -> None:
    take_effect(door, request, named)
    solve_head(door)


# Everything else


def standing(door: Door, request: Request, controller: str) -> Response:
    return signed(door.signer, 200, opendsr.request_status(request, controller, door.signer.domain, door.signer.base_url))


async def tell(door: Door, client: Client, _: HttpRequest, request_id: str) -> Response:
    return standing(door, *await run_in_threadpool(own_request, door, client, request_id, AUDIT in client.scopes))


async def cancel(door: Door, client: Client, _: HttpRequest, request_id: str) -> Response:
    """A pending request ends, as the protocol has it; and one in its grace is withdrawn."""

    def act(project: Project) -> Request:
        request, _ = own_request(door, client, request_id, False)
        in_grace = request.in_grace(project.ledger.time())
        if status(request.state) != "pending" and not in_grace:
            raise RefusedError(409, f"the request is {status(request.state)}; {ONLY}")
        try:
            if in_grace:
                return pauses.withdraw(project, request.request_id)
            return intake.cancel(project, request.request_id, by="the controller")
        except RequestError as error:  # it went on meanwhile
            raise RefusedError(409, f"the request is in progress; {ONLY}") from error

    request = await run_in_threadpool(door.alone, act)
    door.later(partial(solve_head, door))  # of who else is in quarantine
    return signed(door.signer, 202, opendsr.cancelled(request, client.name, door.clock()))


async def certificate(door: Door, client: Client, _: HttpRequest, request_id: str) -> Response:
    def read() -> tuple[bytes, str]:
        request, _ = own_request(door, client, request_id, AUDIT in client.scopes)
        if request.state != CERTIFIED or request.certificate is None:
            raise RefusedError(404, "the request has no certificate yet; `GET /requests/ID` tells where it stands")
        file = door.home.layout.root / request.certificate
        return file.read_bytes(), file.name

    envelope, name = await run_in_threadpool(read)
    named = {"Content-Disposition": f'attachment; filename="{name}"'}  # a verifier asks for the name that it was issued under
    return Response(envelope, 200, NO_STORE | named | door.signer.headers(envelope), "application/json")
