"""Requests drawn from an OpenAPI document: whole, broken, and nothing of the kind; and what must hold for every answer."""

import base64
import json
import random
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW")
KINDS = ("application/json", "application/json; charset=utf-8", "text/plain", "multipart/form-data", "", "*/*")
ODD = (
    "",
    " ",
    "\x00",
    "\u200b",
    "..",
    "%00",
    "%2e%2e%2f",
    "a" * 3000,
    "null",
    "-1",
    "\ud7ff",
    "'; DROP TABLE requests; --",
    "{{7*7}}",
)
LEAVES: tuple[Any, ...] = (None, True, False, 0, -1, 2**70, 1.5, "", "a", "\x00", [], {})


@dataclass(frozen=True)
class Sent:
    """Attributes: path: percent-encoded, with its query."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes


class Fuzzer:
    """Draws requests. Args: document: the OpenAPI document; canary: what is planted, and must never come back.

    ids: of requests that may exist; tokens: valid ones, among which it chooses; subjects: identities to send; images: digests of
    images that are there; labels: that records have.
    """

    def __init__(
        self,
        document: dict[str, Any],
        seed: int,
        canary: str,
        ids: Sequence[str],
        tokens: Sequence[str],
        subjects: Sequence[str],
        images: Sequence[str] = (),
        labels: Sequence[str] = (),
    ) -> None:
        self._dice = random.Random(seed)
        self._images, self._labels = (*images, "0" * 64), (*labels, "nothing")
        self._canary, self._ids, self._tokens, self._subjects = canary, ids, tokens, subjects
        self._routes = [(path, method.upper(), told) for path, of in document["paths"].items() for method, told in of.items()]
        self._with_body = [route for route in self._routes if "requestBody" in route[2]]

    def draw(self) -> Sent:
        dice = self._dice.random
        path, method, told = self._dice.choice(self._with_body if dice() < 0.4 else self._routes)
        if dice() < 0.1:
            method = self._dice.choice(METHODS)
        path = path.replace("{request_id}", self._id())
        if dice() < 0.05:
            path = self._dice.choice(("/v2", "/v2/", "//", "/.", "")) + path
        if dice() < 0.05:
            path = f"/{self._quoted(self._word())}/{self._quoted(self._word())}"
        if dice() < 0.1:
            path += f"?{self._quoted(self._word())}={self._quoted(self._word())}"
        schema = told.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        content = self._body(schema) if schema else b"" if dice() < 0.7 else self._bytes()
        return Sent(method, path, self._headers(bool(schema)), content)

    def _headers(self, has_body: bool) -> dict[str, str]:
        headers = {}
        if self._dice.random() < 0.8:
            headers["Authorization"] = f"Bearer {self._dice.choice(self._tokens)}"
        elif self._dice.random() < 0.5:
            headers["Authorization"] = self._dice.choice(
                ("Bearer", "Bearer ", "Basic YTpi", f"Bearer {self._canary}", "Bearer " + "A" * 5000)
            )
        if has_body or self._dice.random() < 0.3:
            headers["Content-Type"] = KINDS[0] if self._dice.random() < 0.9 else self._dice.choice(KINDS)
        if self._dice.random() < 0.05:
            headers[self._dice.choice(("Accept", "Content-Encoding", "X-Forwarded-For", "Range", "If-None-Match"))] = self._canary
        return headers

    def _id(self) -> str:
        if self._dice.random() < 0.8:
            return self._dice.choice(self._ids)
        return self._quoted(self._word()) or "x"

    def _word(self) -> str:
        if self._dice.random() < 0.5:
            return self._dice.choice((*ODD, self._canary, self._dice.choice(self._subjects)))
        return "".join(self._dice.choices(string.printable, k=self._dice.randrange(12)))

    def _quoted(self, text: str) -> str:
        return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))

    def _bytes(self) -> bytes:
        return self._dice.choice(
            (self._dice.randbytes(self._dice.randrange(200)), b"[" * 50_000, b'"' + b"a" * 70_000 + b'"', b"{}")
        )

    def _body(self, schema: dict[str, Any]) -> bytes:
        if self._dice.random() < 0.1:
            return self._bytes()
        value = self._value(schema)
        for _ in range(self._dice.choice((0, 0, 0, 1, 1, 2, 3))):
            value = self._broken(value)
        text = json.dumps(value, ensure_ascii=self._dice.random() < 0.5)
        data = text.encode("utf-8", "surrogatepass")
        return data[: self._dice.randrange(len(data) + 1)] if self._dice.random() < 0.03 else data

    def _value(self, schema: dict[str, Any], name: str = "") -> Any:
        """A value that the schema allows, or nearly."""
        if "anyOf" in schema:
            return self._value(self._dice.choice(schema["anyOf"]), name)
        if "const" in schema or "enum" in schema:
            return schema.get("const") or self._dice.choice(schema["enum"])
        kind = schema.get("type")
        if kind == "object":
            wanted = schema.get("properties", {})
            needed = schema.get("required", ())
            return {key: self._value(of, key) for key, of in wanted.items() if key in needed or self._dice.random() < 0.2}
        if kind == "array":
            least = schema.get("minItems", 0)
            count = self._dice.randrange(least, schema.get("maxItems", least + 3) + 1)
            return [self._value(schema["items"], name) for _ in range(count)]
        if kind == "integer":
            return self._dice.randint(schema.get("minimum", 0), schema.get("maximum", 100))
        return self._dice.choice(self._texts(name)) if kind == "string" else None

    def _texts(self, name: str) -> Sequence[str]:
        """What a field of this name may hold."""
        if name in ("identity_value", "subject", "of"):
            return self._subjects
        known: dict[str, Sequence[str]] = {
            "subject_request_id": self._ids,
            "submitted_time": ("2026-11-01T00:00:00Z",),
            "sha256": self._images,
            "label": self._labels,
            "until": ("2030-01-31", "2001-01-01", "2030-02-31"),
            "reason": ("file 42", f"the case of {self._canary}"),
        }
        addresses = (
            "https://public.example/told",
            "https://private.example/",
            "http://127.0.0.1/",
            "https://169.254.169.254/latest",
        )
        return known.get(name, addresses)

    def _broken(self, value: Any) -> Any:
        """With one place changed."""
        if isinstance(value, dict) and value and self._dice.random() < 0.8:
            key = self._dice.choice(list(value))
            if self._dice.random() < 0.3:
                return {name: inner for name, inner in value.items() if name != key}
            if self._dice.random() < 0.2:
                return value | {self._dice.choice((self._canary, *ODD)): self._canary}
            return value | {key: self._broken(value[key])}
        if isinstance(value, list) and value and self._dice.random() < 0.7:
            place = self._dice.randrange(len(value))
            return [*value[:place], self._broken(value[place]), *value[place + 1 :]] * self._dice.choice((1, 1, 1, 2, 50))
        return self._dice.choice((*LEAVES, self._canary, {self._canary: [self._canary]}, self._word()))


class Answer(Protocol):
    """As httpx gives it, and what starlette's client makes of it."""

    @property
    def status_code(self) -> int: ...
    @property
    def content(self) -> bytes: ...
    @property
    def headers(self) -> Any: ...
    def json(self) -> Any: ...


def fault(sent: Sent, answer: Answer, canary: str) -> str | None:
    """What is wrong with an answer, without what was sent; None if nothing is."""
    if answer.status_code >= 500:
        return f"{sent.method}: status {answer.status_code}"
    told = answer.content
    if answer.status_code == 201 and b"encoded_request" in told:  # what the protocol gives back to who sent it
        content = json.loads(told)
        if base64.b64decode(content.pop("encoded_request")) != sent.content:
            return "encoded_request is not what was sent"
        told = json.dumps(content).encode()
    if canary.encode() in told.lower() or canary in str(answer.headers).lower():
        return f"{sent.method}: a canary in an answer with status {answer.status_code}"
    if answer.status_code >= 400 and sent.method != "HEAD":
        error = answer.json().get("error", {})
        if error.get("code") != answer.status_code or "\n" in error.get("message", "\n"):
            return f"{sent.method}: status {answer.status_code} without one line"
    return None
