"""What a person does to a request before anything is destroyed: withdraw it, put it on hold, release it, extend its due date.

None of it waits for an erasure that is being carried out, and none of it touches one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta

from flows.project import Project, locked_if_free
from flows.requests.quarantine import refresh, whole_layout
from lmeraser.core.errors import BadInputError, RequestError
from lmeraser.erase.facts import check_known, normalise_subjects, subjects_of
from lmeraser.erase.requests import Request
from lmeraser.erase.states import reached
from lmeraser.prove.search_terms import SHORTEST_NAME

LONGEST = 500  # characters of a reason
FARTHEST = 366 * 10  # days until a hold ends, at most: a year that was mistyped


def withdraw(project: Project, request_id: str) -> Request:
    """End a request within its grace: the model that is served is again the one from before it. Raises: RequestError."""
    project.ledger.withdraw(request_id)
    refresh(project)
    return project.ledger.get(request_id)


def extend(project: Project, request_id: str, days: int, reason: str) -> Request:
    """Move a request's due date, once. Raises: RequestError, BadInputError."""
    project.ledger.extend(request_id, days, checked_reason(project, reason))
    return project.ledger.get(request_id)


def hold_request(project: Project, request_id: str, until: str, reason: str) -> Request:
    """Let nothing of a request be destroyed until a day is over. Raises: RequestError if that has begun, BadInputError."""
    end, why = end_of(until, project.ledger.time()), checked_reason(project, reason)
    with _not_begun(project, [project.ledger.get(request_id)]):
        project.ledger.hold(end, why, request_id=request_id)
    return project.ledger.get(request_id)


def hold_person(project: Project, subject: str, until: str, reason: str) -> list[Request]:
    """Let nothing of a person be destroyed until a day is over, whether or not somebody asked; returns their open requests.

    Raises: RequestError if they are unknown or erased, or if that has begun; BadInputError.
    """
    end, why = end_of(until, project.ledger.time()), checked_reason(project, reason)
    names = normalise_subjects([subject])
    key = project.ensure_subject_key()
    project.erased.check_key(key)
    check_known(names, project.roster(whole_layout(project)).facts, project.erased, key)
    pseudonym = key.pseudonym(names[0])
    with _not_begun(project, _requests_of(project, pseudonym)):
        project.ledger.hold(end, why, pseudonym=pseudonym)
    return _requests_of(project, pseudonym)


def release_request(project: Project, request_id: str) -> list[Request]:
    """End the hold on a request; returns those that go on. Raises: RequestError if there is none."""
    return [project.ledger.get(identity) for identity in project.ledger.release_hold(request_id=request_id)]


def release_person(project: Project, subject: str) -> list[Request]:
    """End the hold on a person; returns the requests that go on. Raises: RequestError if there is none."""
    pseudonym = project.subject_key().pseudonym(normalise_subjects([subject])[0])
    return [project.ledger.get(identity) for identity in project.ledger.release_hold(pseudonym=pseudonym)]


def end_of(until: str, now: float) -> float:
    """When a hold ends that lasts through a day: seconds since 1970, UTC. Raises: BadInputError."""
    try:
        day = date.fromisoformat(until)
    except ValueError as error:
        raise BadInputError("--until is no date; expected the last day of the hold as YYYY-MM-DD, in UTC") from error
    today = datetime.fromtimestamp(now, UTC).date()
    if not today <= day <= today + timedelta(days=FARTHEST):
        raise BadInputError(
            f"--until is past, or far ahead; expected a day from today ({today}, UTC) on, at most ten years ahead"
        )
    return datetime.combine(day + timedelta(days=1), time(), UTC).timestamp()


def checked_reason(project: Project, text: str) -> str:
    """A reason in one line. Raises: BadInputError if it is empty, long, or names somebody of the records.

    A name in it would be a trace of that person: the scan of their own erasure would find it.
    """
    reason = " ".join(text.split())
    if not 1 <= len(reason) <= LONGEST or not reason.isprintable():
        raise BadInputError(f"--reason holds no reason; give 1 to {LONGEST} printable characters")
    told = reason.casefold()
    everybody = subjects_of(project.roster(whole_layout(project)).facts)
    if any(subject.casefold() in told for subject in everybody if len(subject) >= SHORTEST_NAME):
        raise BadInputError(
            "--reason names a person of the records; tell it without names (a file number, say): names are traces"
        )
    return reason


def _requests_of(project: Project, pseudonym: str) -> list[Request]:
    return [request for request in project.ledger.all(open_only=True) if pseudonym in request.pseudonyms]


@contextmanager
def _not_begun(project: Project, requests: list[Request]) -> Iterator[None]:
    """Dissolve the batches of requests for which nothing was done, where nobody is at it; the ledger refuses those that stay."""
    batch_ids = {request.batch_id for request in requests if request.batch_id and not reached(request.reached, "removed")}
    if not batch_ids:
        yield
        return
    with locked_if_free(project.layout.workspace_lock) as free:
        if not free:
            raise RequestError(
                "an erasure of these people is being carried out and cannot be held any more; see `lmeraser status`"
            )
        for batch_id in batch_ids:
            if not any(reached(request.reached, "removed") for request in project.ledger.all() if request.batch_id == batch_id):
                project.ledger.dissolve_batch(batch_id)
        yield
