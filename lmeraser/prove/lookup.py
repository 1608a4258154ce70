"""A signed answer to "is this person, or this image, in the model?": an in-toto Statement v1 in a DSSE envelope, as certificates
are. It names the asked one by the pseudonym, and discloses nobody else. It is no part of the chain of certificates.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lmeraser.core.errors import VerificationError
from lmeraser.erase.erased import IMAGE
from lmeraser.prove.certificate import sign
from lmeraser.prove.statement import (
    COUNT,
    NUMBER,
    REQUEST_ID,
    SHA256,
    SHORT_ID,
    STATEMENT_TYPE,
    TEXT,
    UTC_TIME,
    Rule,
    check_rule,
)
from lmeraser.prove.verify import CertificateError, signed_statement

if TYPE_CHECKING:  # 0.2 s that only signing and checking need
    from securesystemslib.signer._crypto_signer import CryptoSigner  # the package does not export it to mypy
    from securesystemslib.signer._key import SSlibKey

PREDICATE_TYPE = "urn:lmeraser:lookup:v1"
FORMAT = 1
PRESENT, ABSENT, ERASED = "present", "absent", "erased"
LIMITS = (
    "It is about the model that this project served at that time, and the records that it learnt from or is tested with. Clones, "
    "backups, exported models and the source are outside.",
    "The signature shows who answered and that nobody changed it since. It does not show that the answer is true.",
    "A subject is a name as the manifest spells it, and an image is its bytes: another spelling or encoding is another one. "
    "Whoever has the subject key can test a name or an image against the pseudonym.",
)


@dataclass(frozen=True)
class Answer:
    """Attributes:
    pseudonym: of the asked subject or image. train, test, public: records now; train and test of the private ones.
    request_id, erased_at, certificate: of the erasure, if it is known here; certificate: its file.
    open_request: of the request that is about to erase it.
    """

    pseudonym: str
    train: int = 0
    test: int = 0
    public: int = 0
    is_erased: bool = False
    request_id: str | None = None
    erased_at: str | None = None
    certificate: str | None = None
    open_request: str | None = None

    @property
    def kind(self) -> str:
        return "image" if self.pseudonym.startswith(IMAGE) else "subject"

    @property
    def records(self) -> int:
        return self.train + self.test + self.public

    @property
    def answer(self) -> str:
        return PRESENT if self.records else ERASED if self.is_erased else ABSENT

    def to_json(self) -> dict[str, Any]:
        """Without the pseudonym."""
        told = {"answer": self.answer, "kind": self.kind, "records": self.records} | asdict(self)
        return {name: value for name, value in told.items() if name not in ("pseudonym", "is_erased")}


@dataclass(frozen=True)
class Context:
    """Whose answer it is, and when it was given. Attributes: project: its id; subject_key_id: of the pseudonym's key."""

    project: str
    subject_key_id: str
    answered_at: str


def _or_null(rule: Rule) -> Rule:
    return Rule(f"{rule.words}, or null", lambda value: value is None or rule.holds(value))


PREDICATE: dict[str, Any] = {
    "format": NUMBER,
    "project": SHORT_ID,
    "subject_key_id": SHORT_ID,
    "answered_at": UTC_TIME,
    "answer": Rule("present, absent or erased", lambda value: value in (PRESENT, ABSENT, ERASED)),
    "kind": Rule("subject or image", lambda value: value in ("subject", "image")),
    "records": COUNT,
    "train": COUNT,
    "test": COUNT,
    "public": COUNT,
    "request_id": _or_null(REQUEST_ID),
    "erased_at": _or_null(UTC_TIME),
    "certificate": _or_null(TEXT),
    "open_request": _or_null(REQUEST_ID),
    "limits": [TEXT],
}
SUBJECT: list[Any] = [{"name": Rule("subject or image", PREDICATE["kind"].holds), "digest": {"hmac-sha256": SHA256}}]


def sign_answer(answer: Answer, context: Context, signer: "CryptoSigner") -> bytes:
    """The envelope's bytes. Raises: VerificationError if a value breaks its rule."""
    predicate = {"format": FORMAT, **asdict(context), **answer.to_json(), "limits": list(LIMITS)}
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": answer.kind, "digest": {"hmac-sha256": answer.pseudonym.removeprefix(IMAGE)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    _check(statement)
    return sign(statement, signer)


def check_answer(data: bytes, keys: "Sequence[SSlibKey]", where: str) -> tuple[dict[str, Any], str]:
    """What a signed answer says, and the id of its key. Args: where: how messages call it. Raises: CertificateError."""
    signed = signed_statement(data, PREDICATE_TYPE, keys, where)
    try:
        _check(signed.statement)
    except VerificationError as error:
        raise CertificateError(f"{where}: {error}") from error
    predicate: dict[str, Any] = signed.statement["predicate"]
    return predicate, signed.key_id


def _check(statement: dict[str, Any]) -> None:
    """Raises: VerificationError; it tells the field and what was expected, never the value."""
    check_rule(statement.get("subject"), SUBJECT, "subject", FORMAT)
    check_rule(statement.get("predicate"), PREDICATE, "predicate", FORMAT)
    told = statement["predicate"]
    if told["format"] != FORMAT or len(statement) != 4:
        raise VerificationError(f"its format is not {FORMAT}; use the lmeraser that signed it, or a newer")
    if len(statement["subject"]) != 1 or statement["subject"][0]["name"] != told["kind"]:
        raise VerificationError("subject is not the one that predicate.kind tells")
    if told["records"] != told["train"] + told["test"] + told["public"] or (told["answer"] == PRESENT) != (told["records"] > 0):
        raise VerificationError("predicate.answer does not fit the records that it counts")
