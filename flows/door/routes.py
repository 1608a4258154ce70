"""The routes: each with the scopes that it needs, in one table. `router(door)` gives them to an application.

An application that takes the router also takes `answers.handle` for its errors (`flows/door/asgi.py`).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from flows.door import opendsr
from flows.door.answers import NO_STORE, signed
from flows.door.bodies import Correction, Extension, Hold, Images, Question, schema_of
from flows.door.deciding import Proposals, approve, decline, extend, hold, proposed, release
from flows.door.guard import Door, Needs, let_in
from flows.door.kinds import Looked, correct, images, lookup
from flows.door.opendsr import Acknowledged, Cancelled, DataSubjectRequest, Discovery, ErrorAnswer, Received, RequestStatus
from flows.door.requests import cancel, certificate, submit, tell
from flows.door.tokens import APPROVE, AUDIT, READ, SUBMIT, Client


async def ledger_head(door: Door, *_: object) -> Response:
    sequence, digest = await run_in_threadpool(door.home.ledger.head)
    return signed(door.signer, 200, {"sequence": sequence, "sha256": digest})


# The table


class LedgerHead(BaseModel):
    sequence: int
    sha256: str


@dataclass(frozen=True)
class Route:
    """Attributes: act: gets door, client, request and the path's id; needs: scopes; model: of the answer; body: what is read, if
    anything is; errors: codes beside 401, 403, 429, 503.
    """

    method: str
    path: str
    act: Callable[[Door, Client, HttpRequest, str], Awaitable[Response]]
    needs: Needs
    code: int
    summary: str
    model: type[BaseModel] | None
    errors: tuple[int, ...] = ()
    body: type[BaseModel] | None = None


OF_ID = "/requests/{request_id}"
SENDERS: Needs = (frozenset({SUBMIT}),)
OWNERS: Needs = (frozenset({SUBMIT, READ}),)
READERS: Needs = (frozenset({READ}), frozenset({AUDIT}))
DECIDERS: Needs = (frozenset({APPROVE}),)
AUDITORS: Needs = (frozenset({AUDIT}),)
BODY = (400, 408, 413, 415)
STATE = (400, 404, 409)


def _decision(name: str, act: Callable[..., Awaitable[Response]], summary: str, body: type[BaseModel] | None = None) -> Route:
    errors = tuple(sorted({*STATE, *(BODY if body else ())}))
    return Route("POST", f"{OF_ID}/{name}", act, DECIDERS, 200, summary, RequestStatus, errors, body)


ROUTES = (
    # OpenDSR's
    Route("POST", "/requests", submit, SENDERS, 201, "send a request", Received, (*BODY, 409), DataSubjectRequest),
    Route("GET", OF_ID, tell, READERS, 200, "where a request stands", RequestStatus, (400, 404)),
    Route("DELETE", OF_ID, cancel, OWNERS, 202, "end a request that is pending, or in its grace", Cancelled, STATE),
    Route("GET", f"{OF_ID}/certificate", certificate, READERS, 200, "the erasure's certificate", None, (400, 404)),
    # Ours
    Route("POST", "/images", images, SENDERS, 201, "send a request for single images", Acknowledged, (*BODY, 409), Images),
    Route("POST", "/corrections", correct, OWNERS, 201, "send a correction", Acknowledged, (*BODY, 409), Correction),
    _decision("approve", approve, "let a request take effect that waits for approval, or that is proposed"),
    _decision("decline", decline, "end a request that waits for approval, or that is proposed"),
    _decision("hold", hold, "let nothing of it be destroyed until a day is over", Hold),
    _decision("release", release, "end the holds on it"),
    _decision("extend", extend, "move its due date, once", Extension),
    Route("GET", "/proposals", proposed, (*DECIDERS, *AUDITORS), 200, "what is proposed", Proposals),
    Route("POST", "/lookup", lookup, AUDITORS, 200, "is somebody, or an image, in the model", Looked, BODY, Question),
    Route("GET", "/ledger/head", ledger_head, AUDITORS, 200, "the ledger's last event", LedgerHead),
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
    if route.body:
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema_of(route.body)}}}
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
