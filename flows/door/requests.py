"""The routes for requests: each with the scopes that it needs, in one table. `router(door)` gives them to an application.

An application that takes the router also takes `answers.handle` for its errors (`flows/door/asgi.py`).
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from flows.door import addresses, opendsr, outbox
from flows.door.answers import NO_STORE, RefusedError, signed
from flows.door.guard import Door, Needs, let_in, whole_body
from flows.door.opendsr import Cancelled, Discovery, Erasure, ErrorAnswer, Received, RequestStatus
from flows.door.tokens import APPROVE, AUDIT, READ, SUBMIT, Client
from flows.project import Project
from flows.requests import intake
from flows.requests.quarantine import solve_newest
from flows.service.client import announce, resume_waiting
from lmeraser.core.errors import BlockedError, LmeraserError, RequestError
from lmeraser.core.progress import say
from lmeraser.erase.facts import normalise_subjects
from lmeraser.erase.requests import Request
from lmeraser.erase.states import CERTIFIED, status

IN_USE = "this subject_request_id is in use; nothing was done: send the request again with a new id"
OTHER = "this subject_request_id was received for another identity; nothing was done: send a new id for a new request"


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


def receive(door: Door, client: Client, erasure: Erasure) -> Request:
    """Commit the request to the ledger, or recognise it. Raises: RefusedError if its id is another's, or about another person."""
    project, subjects = door.now(), normalise_subjects([erasure.subject])
    known = project.ledger.find(erasure.request_id)
    if known is not None and outbox.owner(door.store, erasure.request_id) is None:  # it came by the command line
        raise RefusedError(409, IN_USE)
    if not outbox.claim(door.store, erasure.request_id, client.name):
        raise RefusedError(409, IN_USE)
    try:
        request = intake.receive(project, subjects, erasure.request_id, False)
    except RequestError as error:
        if known is not None or project.ledger.find(erasure.request_id) is not None:
            raise RefusedError(409, OTHER) from error
        raise
    if erasure.callbacks:
        first = project.ledger.events(erasure.request_id)[0].seq
        outbox.subscribe(door.store, erasure.request_id, erasure.callbacks, first - 1)
    return request


def take_effect(door: Door, request: Request, subjects: Sequence[str]) -> None:
    """Validated, and in effect at once, as `lmeraser submit` does it. That it is refused is its state, and not told here.

    Whatever happens: the request is in the ledger, and its acknowledgement is true.
    """
    try:
        door.alone(lambda project: intake.accept(project, request, subjects, solved=False))
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
        take_effect(door, request, [])
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
    request = await run_in_threadpool(receive, door, client, erasure)
    if READ in client.scopes:
        await run_in_threadpool(take_effect, door, request, [erasure.subject])
        door.later(partial(solve_head, door))
    else:  # how long it takes tells whether the person is known: such a client does not wait for it
        door.later(partial(_effect_then_head, door, request, [erasure.subject]))
    return signed(door.signer, 201, opendsr.received(request, client.name, body))


def _effect_then_head(door: Door, request: Request, subjects: Sequence[str]) -> None:
    take_effect(door, request, subjects)
    solve_head(door)


# Everything else


def _status(door: Door, request: Request, controller: str) -> Response:
    return signed(door.signer, 200, opendsr.request_status(request, controller, door.signer.domain, door.signer.base_url))


async def tell(door: Door, client: Client, _: HttpRequest, request_id: str) -> Response:
    return _status(door, *await run_in_threadpool(own_request, door, client, request_id, AUDIT in client.scopes))


async def cancel(door: Door, client: Client, _: HttpRequest, request_id: str) -> Response:
    def act(project: Project) -> Request:
        request, _ = own_request(door, client, request_id, False)
        if status(request.state) != "pending":
            raise RefusedError(409, f"the request is {status(request.state)}; only a pending one can be cancelled")
        try:
            return intake.cancel(project, request.request_id, by="the controller")
        except RequestError as error:  # it went on meanwhile
            raise RefusedError(409, "the request is in progress; only a pending one can be cancelled") from error

    request = await run_in_threadpool(door.alone, act)
    return signed(door.signer, 202, opendsr.cancelled(request, client.name, door.clock()))


async def approve(door: Door, client: Client, _: HttpRequest, request_id: str) -> Response:
    def act(project: Project) -> tuple[Request, str]:
        request, controller = own_request(door, client, request_id, True)
        if not intake.needs_approval(project, request):
            raise RefusedError(409, "the request does not wait for approval; nothing was done")
        approved = intake.approve(project, request.request_id, client.name, solved=False)
        if not resume_waiting(project.layout, request.request_id, client.name):
            announce(project.layout, request.request_id)
        return approved, controller

    approved, controller = await run_in_threadpool(door.alone, act)
    door.later(partial(solve_head, door))
    return _status(door, approved, controller)


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


async def ledger_head(door: Door, *_: object) -> Response:
    sequence, digest = await run_in_threadpool(door.home.ledger.head)
    return signed(door.signer, 200, {"sequence": sequence, "sha256": digest})


# The table


class LedgerHead(BaseModel):
    sequence: int
    sha256: str


@dataclass(frozen=True)
class Route:
    """Attributes: act: gets door, client, request and the path's id; needs: scopes; errors: codes beside 401, 403, 429, 503."""

    method: str
    path: str
    act: Callable[[Door, Client, HttpRequest, str], Awaitable[Response]]
    needs: Needs
    code: int
    summary: str
    model: type[BaseModel] | None
    errors: tuple[int, ...] = ()


OF_ID = "/requests/{request_id}"
READERS: Needs = (frozenset({READ}), frozenset({AUDIT}))
ROUTES = (
    Route("POST", "/requests", submit, (frozenset({SUBMIT}),), 201, "send a request", Received, (400, 409, 413, 415)),
    Route("GET", OF_ID, tell, READERS, 200, "where a request stands", RequestStatus, (400, 404)),
    Route("DELETE", OF_ID, cancel, (frozenset({SUBMIT, READ}),), 202, "end a pending request", Cancelled, (400, 404, 409)),
    Route(
        "POST", f"{OF_ID}/approve", approve, (frozenset({APPROVE}),), 200, "let it take effect", RequestStatus, (400, 404, 409)
    ),
    Route("GET", f"{OF_ID}/certificate", certificate, READERS, 200, "the erasure's certificate", None, (400, 404)),
    Route("GET", "/ledger/head", ledger_head, (frozenset({AUDIT}),), 200, "the ledger's last event", LedgerHead),
)


def _endpoint(door: Door, route: Route) -> Callable[..., Awaitable[Response]]:
    async def of_id(http: HttpRequest, request_id: str) -> Response:
        return await route.act(door, await let_in(door, http, route.needs), http, request_id)

    async def plain(http: HttpRequest) -> Response:
        return await route.act(door, await let_in(door, http, route.needs), http, "")

    return of_id if "{" in route.path else plain


def _documented(route: Route) -> dict[str, Any]:
    """What OpenAPI says of a route."""
    answers: dict[int, dict[str, Any]] = {code: {"model": ErrorAnswer} for code in (401, 403, 429, 503, *route.errors)}
    answers[route.code] = {"model": route.model} if route.model else {"content": {"application/json": {}}}
    extra: dict[str, Any] = {"security": [{"token": []}]}
    if route.act is submit:
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": opendsr.request_schema()}}}
    return {"responses": answers, "openapi_extra": extra, "status_code": route.code, "summary": route.summary}


def router(door: Door) -> APIRouter:
    """The protocol's routes and ours, without a prefix. Errors are raised for `answers.handle`."""
    made = APIRouter(default_response_class=Response)

    @made.get("/discovery", responses={200: {"model": Discovery}}, summary="what this processor supports")
    async def discovery() -> Response:
        return signed(door.signer, 200, opendsr.discovery(door.signer.base_url))

    pem: dict[int | str, dict[str, Any]] = {200: {"content": {"application/x-pem-file": {}}}}

    @made.get("/certificate.pem", responses=pem, summary="the certificate that answers and callbacks are signed with")
    async def signing_certificate() -> Response:
        return Response(door.signer.certificate, 200, NO_STORE, "application/x-pem-file")

    for route in ROUTES:
        made.add_api_route(
            route.path, _endpoint(door, route), methods=[route.method], name=route.act.__name__, **_documented(route)
        )
    return made
