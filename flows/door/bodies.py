"""What comes in is read strictly: JSON, each field once, none that is unknown; and the bodies of our own routes. Pure.

A refusal names fields and what was expected, and never a value. What OpenDSR has a word for is called by it here too.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmeraser.core.errors import RequestError
from lmeraser.core.strict_json import strict_json
from lmeraser.erase.ledger_pauses import MOST_DAYS

UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
A_UUID = "a UUID (8-4-4-4-12 hex digits)"
MOST_IMAGES = 500  # of a request: as many as fit into a body

M = TypeVar("M", bound="Strict")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


RequestId = Annotated[str, Field(pattern=f"^{UUID.pattern}$", description=A_UUID)]
Digest = Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]
Digests = Annotated[
    list[Digest],
    Field(
        min_length=1,
        max_length=MOST_IMAGES,
        description=f"a list of 1 to {MOST_IMAGES} SHA-256 of images' bytes, each of 64 hex digits",
    ),
]
Name = Annotated[str, Field(min_length=1, max_length=1024)]
Reason = Annotated[str, Field(min_length=1, max_length=500, description="text of 1 to 500 characters, without names")]


class Images(Strict):
    """Single images shall be forgotten, whoever's they are; nobody is named."""

    subject_request_id: RequestId
    sha256: Digests


class Correction(Strict):
    """A label, or whose record it is, is wrong: the record stays with the right one. One of label and subject."""

    subject_request_id: RequestId
    sha256: Digests
    label: Name | None = Field(None, description="the right label as text, 1 to 1024 characters")
    subject: Name | None = Field(None, description="the person whose record it is, as text of 1 to 1024 characters")
    of: Name | None = Field(None, description="the person whose record is meant, as text of 1 to 1024 characters")


class Hold(Strict):
    """Nothing of a request is destroyed until a day is over."""

    until: Annotated[
        str, Field(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$", description="the last day of the hold as YYYY-MM-DD, in UTC")
    ]
    reason: Reason


class Extension(Strict):
    """A request's due date moves, once."""

    days: Annotated[int, Field(ge=1, le=MOST_DAYS, description=f"a whole number of days, 1 to {MOST_DAYS}")]
    reason: Reason


class Question(Strict):
    """Is this person, or this image, in the model? One of both."""

    subject: Name | None = Field(None, description="a person's id as text, 1 to 1024 characters")
    sha256: Digest | None = Field(None, description="the SHA-256 of an image's bytes, 64 hex digits")


def read_own(body: bytes, model: type[M]) -> M:
    """The body of one of our own routes. Raises: RequestError."""
    return read_body(body, model, {name: str(told.description) for name, told in model.model_fields.items()}, "this route's body")


def read_body(body: bytes, model: type[M], expected: Mapping[str, str], what: str) -> M:
    """Args: expected: of each field, in words; what: the body, in words. Raises: RequestError naming a field, and no value."""
    try:
        raw = strict_json(body)
    except ValueError as error:
        raise RequestError(f"the body is not valid JSON (UTF-8, each field once); expected {what}") from error
    if not isinstance(raw, dict):
        raise RequestError(f"the body is not a JSON object; expected {what}")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise RequestError(_line(error, expected, what)) from None


def _line(error: ValidationError, expected: Mapping[str, str], what: str) -> str:
    """The first problem in plain English. A place is told by fields that we know: an unknown one may hold anything."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    extra = first["type"] == "extra_forbidden"
    place = first["loc"][:-1] if extra else first["loc"]
    field = next((str(part) for part in reversed(place) if part in expected), "the request")
    if extra:
        ours = " (what is yours goes into `extensions`)" if "extensions" in expected else f"; it has {', '.join(expected)}"
        return f"{field} has a field that {what} does not define; leave it out{ours}"
    if first["type"] == "missing":
        return f"{field} is missing; expected {expected[field]}"
    return f"{field} is not supported or not valid; expected {expected.get(field, what)}"


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """A body's JSON schema, whole: an OpenAPI document resolves no reference within it."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def whole(value: Any) -> Any:
        if isinstance(value, dict):
            name = value.get("$ref", "").rpartition("/")[2]
            return whole(definitions[name]) if name else {key: whole(entry) for key, entry in value.items()}
        return [whole(entry) for entry in value] if isinstance(value, list) else value

    inlined: dict[str, Any] = whole(schema)
    return inlined
