"""Requests of several kinds on a fake project, and the rows that are to be left after them."""

from collections.abc import Sequence
from dataclasses import replace

from builders import Row, contents, png
from fake_pipeline import CANARY, FakePipeline, everybody
from histories import id_of

from flows.requests import intake, rectify
from flows.requests.rectify import Wanted
from lmeraser.core.digest import sha256
from lmeraser.core.errors import RequestError
from lmeraser.erase.requests import Request
from lmeraser.erase.states import REJECTED

KINDS = ("label", "subject", "person", "image")
Rows = tuple[Row, ...]
SHARED = 10  # seed of an image that two people have
ROWS: Rows = tuple(row.named(index) for index, row in enumerate((*everybody(), Row(f"{CANARY}-4", "one", seed=SHARED))))
PRIVATE = [row for row in ROWS if row.visibility == "private"]


def digest_of(seed: int) -> str:
    return sha256(png(seed))


def with_value(rows: Sequence[Row], old: Row, label: str | None = None, subject: str | None = None) -> Rows:
    new = replace(old, label=label or old.label, subject=subject or old.subject)
    return tuple(new if row == old else row for row in rows)


def left(pipeline: FakePipeline, gone: Sequence[Row]) -> list[str]:
    """Files outside the source that hold an id of a record as it was."""
    ids = [id_of(row).encode() for row in gone]
    files = contents(pipeline.root.parent).items()
    return [name for name, held in files if not name.startswith("project/people/") and any(term in held for term in ids)]


def applied(kind: str, seed: int, person: str, rows: Rows) -> Rows:
    """The rows as they are to be. Args: seed: of the image that is meant; person: who goes, or whose image it is."""
    old = next((row for row in rows if row.seed == seed), None)
    if kind == "person":
        return tuple(row for row in rows if row.subject != person)
    if old is None:
        return rows
    if kind == "image":
        return tuple(row for row in rows if row.seed != seed)
    if kind == "label":
        return with_value(rows, old, label="one" if old.label == "two" else "two")
    return with_value(rows, old, subject=person) if any(row.subject == person for row in rows) else rows


def ask(pipeline: FakePipeline, kind: str, seed: int, person: str, rows: Rows) -> Request | None:
    """The request, if it is accepted; it waits then."""
    if kind == "person":
        request = pipeline.submit(person, solved=False)
    elif kind == "image":
        request = pipeline.submit(images=[sha256(png(seed))], solved=False)
    else:
        old = next(row for row in rows if row.seed == seed)
        label, subject = ("one" if old.label == "two" else "two", None) if kind == "label" else (None, person)
        try:
            request = correct(pipeline, Wanted([sha256(png(seed))], label, subject))
        except RequestError:
            return None  # of an image that an open request corrects or erases
    assert request.state != REJECTED or "contradict" in str(request.reason) or "left" in str(request.reason)
    return request if request.is_open else None


def correct(pipeline: FakePipeline, wanted: Wanted) -> Request:
    with pipeline.process() as project:
        request = rectify.receive(project, wanted, None)
        return intake.take_effect(project, intake.validate(project, request), solved=False)
