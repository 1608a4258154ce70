"""What OpenDSR has no word for: single images and corrections come in as erasures do; and who audits may look somebody up."""

import json

from fastapi import Request as HttpRequest
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from flows.door import opendsr
from flows.door.answers import RefusedError, signed
from flows.door.bodies import Correction, Images, Question, read_own
from flows.door.guard import Door, whole_body
from flows.door.requests import let_take_effect, receive
from flows.door.tokens import Client
from flows.project import Project
from flows.requests import intake, rectify
from flows.requests.intake import Named
from flows.requests.lookup import look_up, signed_answer
from flows.requests.rectify import Wanted
from lmeraser.core.errors import RequestError
from lmeraser.erase.requests import Request

CLEARED = (
    "this project's source is cleared by erasures, so the right value is written there first; its operator then corrects it "
    "here: nothing was done"
)


class Looked(BaseModel):
    """Attributes: signed: the same answer, with the asked one's pseudonym, as a DSSE envelope of the certificates' key."""

    answer: str
    kind: str
    records: int
    train: int
    test: int
    public: int
    request_id: str | None
    erased_at: str | None
    certificate: str | None
    open_request: str | None
    signed: dict[str, object]


async def images(door: Door, client: Client, http: HttpRequest, _: str) -> Response:
    asked = read_own(await whole_body(http), Images)
    identity, digests = asked.subject_request_id.lower(), _plain(asked.sha256)
    request = await run_in_threadpool(
        receive, door, client, identity, lambda project: intake.receive(project, [], identity, False, digests)
    )
    await let_take_effect(door, client, request, Named((), digests))
    return signed(door.signer, 201, opendsr.acknowledged(request, client.name))


async def correct(door: Door, client: Client, http: HttpRequest, _: str) -> Response:
    """What is to be corrected must be there, so the records are looked at before the request is received."""
    asked = read_own(await whole_body(http), Correction)
    identity = asked.subject_request_id.lower()
    wanted = Wanted(_plain(asked.sha256), asked.label, asked.subject, asked.of)

    def commit(project: Project) -> Request:
        if project.params.source.erase:
            raise RefusedError(409, CLEARED)
        return door.alone(lambda now: rectify.receive(now, wanted, identity))

    request = await run_in_threadpool(receive, door, client, identity, commit)
    await let_take_effect(door, client, request)
    return signed(door.signer, 201, opendsr.acknowledged(request, client.name))


async def lookup(door: Door, _: Client, http: HttpRequest, __: str) -> Response:
    """A question is a body: what stands in an address is kept by proxies."""
    asked = read_own(await whole_body(http), Question)
    if (asked.subject is None) == (asked.sha256 is None):
        raise RequestError("expected one of subject and sha256: the person, or the image, that is asked for")
    digest = asked.sha256.lower() if asked.sha256 else None

    def act(project: Project) -> dict[str, object]:
        project.ensure_subject_key()
        answer = look_up(project, asked.subject, digest)
        return answer.to_json() | {"signed": json.loads(signed_answer(project, answer))}

    return signed(door.signer, 200, await run_in_threadpool(door.alone, act))


def _plain(digests: list[str]) -> list[str]:
    """In lower case, each once."""
    return list(dict.fromkeys(digest.lower() for digest in digests))
