"""What whoever may approve decides: what is proposed, what waits for approval, what is held and for how long."""

from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import Request as HttpRequest
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from flows.door import opendsr
from flows.door.answers import RefusedError, by_fields, signed
from flows.door.bodies import Extension, Hold, read_own
from flows.door.guard import Door, whole_body
from flows.door.requests import own_request, solve_head, standing
from flows.door.tokens import Client
from flows.project import Project
from flows.requests import intake, pauses, proposals
from flows.service.client import announce, resume_waiting
from lmeraser.core.errors import ProjectError, RequestError
from lmeraser.core.progress import say
from lmeraser.erase.requests import Request
from lmeraser.erase.states import PROPOSED

SHOWN = 1000  # proposals of one answer


class Proposed(BaseModel):
    subject_request_id: str
    proposed_for: str
    received_time: str
    expected_completion_time: str
    waits_until: str | None


class Proposals(BaseModel):
    """Attributes: total: of all that wait; proposals: those that are due first, and nobody's name."""

    total: int
    proposals: list[Proposed]


async def proposed(door: Door, *_: object) -> Response:
    def read() -> dict[str, Any]:
        ledger = door.home.ledger
        waiting = sorted((each for each in ledger.all() if each.state == PROPOSED), key=lambda each: each.due_at)
        causes = {event.request_id: str(event.data["why"]) for event in ledger.events(kinds=(PROPOSED,))} if waiting else {}
        told = [opendsr.proposal(each, causes[each.request_id]) for each in waiting[:SHOWN]]
        return {"total": len(waiting), "proposals": told}

    return signed(door.signer, 200, await run_in_threadpool(read))


async def approve(door: Door, client: Client, _: HttpRequest, request_id: str) -> Response:
    def act(project: Project, request: Request) -> None:
        if request.state == PROPOSED:
            _accept(project, request, client.name)
        elif intake.needs_approval(project, request):
            intake.approve(project, request.request_id, client.name, solved=False)
        else:
            raise RequestError("the request does not wait for approval; nothing was done")
        is_open = project.ledger.get(request.request_id).is_open
        if is_open and not resume_waiting(project.layout, request.request_id, client.name):
            announce(project.layout, request.request_id)

    answer = await _decide(door, client, request_id, act)
    door.later(partial(solve_head, door))
    return answer


def _accept(project: Project, request: Request, who: str) -> None:
    """What is accepted is so, also while nobody can tell whether it is valid: then it is received, and looked at again."""
    try:
        proposals.accept(project, [request.request_id], who, solved=False)
    except ProjectError as error:
        if project.ledger.get(request.request_id).state == PROPOSED:
            raise
        say(f"door: request {request.request_id} is accepted, and not in effect yet: {error}")


async def decline(door: Door, client: Client, _: HttpRequest, request_id: str) -> Response:
    def act(project: Project, request: Request) -> None:
        if request.state != PROPOSED and not intake.needs_approval(project, request):
            raise RequestError("the request is not proposed, and does not wait for approval; nothing was done")
        intake.cancel(project, request.request_id, by=client.name, only=request.state)

    return await _decide(door, client, request_id, act)


async def hold(door: Door, client: Client, http: HttpRequest, request_id: str) -> Response:
    asked = read_own(await whole_body(http), Hold)

    def act(project: Project, request: Request) -> None:
        pauses.hold_request(project, request.request_id, asked.until, asked.reason)

    return await _decide(door, client, request_id, act)


async def release(door: Door, client: Client, _: HttpRequest, request_id: str) -> Response:
    def act(project: Project, request: Request) -> None:
        for released in pauses.release_request(project, request.request_id):
            announce(project.layout, released.request_id)

    return await _decide(door, client, request_id, act)


async def extend(door: Door, client: Client, http: HttpRequest, request_id: str) -> Response:
    asked = read_own(await whole_body(http), Extension)

    def act(project: Project, request: Request) -> None:
        pauses.extend(project, request.request_id, asked.days, asked.reason)

    return await _decide(door, client, request_id, act)


async def _decide(door: Door, client: Client, request_id: str, act: Callable[[Project, Request], None]) -> Response:
    """Do it to any client's request, and tell where it stands then. What its state does not allow is a 409."""

    def alone(project: Project) -> tuple[Request, str]:
        request, controller = own_request(door, client, request_id, True)
        try:
            act(project, request)
        except RequestError as error:
            raise RefusedError(409, by_fields(error)) from error
        return project.ledger.get(request.request_id), controller

    return standing(door, *await run_in_threadpool(door.alone, alone))
