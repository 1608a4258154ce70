"""Check certificates offline: numbered steps, each raising with its own line. Needs the files and public keys, nothing else.

One certificate: 1 a file of at most 64 MiB, 2 JSON without repeated names, 3 a DSSE envelope, 4 the payload type of in-toto,
5 signed by a known key, 6 a canonical payload, 7 an in-toto Statement v1, 8 about an erasure, 9 whose content obeys its rules and
whose proofs of absence lead to its root, 10 under the name that it gives itself.
Several: 11 in unbroken order, 12 each naming the digest of the one before, 13 with one key until a signed break, 14 one
certificate a request, 15 of one project, and of the one that was asked for.
With the HEAD beside them (`lmeraser/prove/home.py`): 16 the certificate that it names is there. With a head that was kept
elsewhere: 17 the last certificate is that head. Without one a tail that was cut with HEAD cannot be seen.

Sources: DSSE v1.0.2 (github.com/secure-systems-lab/dsse), in-toto Statement v1, Ed25519 (RFC 8032).
"""

import base64
import binascii
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lmeraser.core.digest import canonical_json, sha256
from lmeraser.core.errors import BadInputError, VerificationError
from lmeraser.core.strict_json import RepeatedNameError, strict_json
from lmeraser.prove.statement import PREDICATE_TYPE, STATEMENT_TYPE, check_content

if TYPE_CHECKING:  # 0.2 s that only verifying needs
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer._key import SSlibKey  # the package does not export it to mypy

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_BYTES = 2**26
NAME = re.compile(r"(?P<sequence>[0-9]{5,})-(?P<request_id>[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})\.json")
HEAD = re.compile(r"0*(?P<sequence>[1-9][0-9]{0,15})[: ](?P<digest>[0-9a-f]{64})\n?")

Head = tuple[int, str]  # sequence and digest of the last certificate of a chain


class CertificateError(VerificationError):
    """A certificate, or a chain of them, does not show what it should."""


@dataclass(frozen=True)
class Certificate:
    """One that was verified.

    Attributes: digest: SHA-256 of the decoded payload; subjects, images, rectified: pseudonyms.
        break_from: id of the key before a signed break; version: of the format.
        project: whose it is, None in format 1, which did not say.
        subject_key: id of the key that made the pseudonyms.
        retained: root of the tree over the people who are retained; audit_key: id of the audit key;
        rebuild_share: one request of so many is rebuilt at once. None before format 3.
    """

    file: str
    version: int
    project: str | None
    request_id: str
    sequence: int
    key_id: str
    completed_at: str
    digest: str
    previous: str | None
    break_from: str | None
    subjects: tuple[str, ...]
    limits: tuple[str, ...]
    subject_key: str
    retained: str | None
    audit_key: str | None
    rebuild_share: int | None
    images: tuple[str, ...] = ()
    rectified: tuple[str, ...] = ()

    @property
    def head(self) -> Head:
        return self.sequence, self.digest


@dataclass(frozen=True)
class Verdict:
    """Everything given is valid.

    Attributes:
        chain: every certificate from the first to the last one given is here, linked.
        anchored: the last one is the head that the caller knows; only then nothing is cut off.
    """

    certificates: tuple[Certificate, ...]
    chain: bool
    anchored: bool
    keys: tuple[str, ...]

    @property
    def limits(self) -> list[str]:
        """What the certificates say that they do not show, each sentence once."""
        return list(dict.fromkeys(text for certificate in self.certificates for text in certificate.limits))


def file_name(sequence: int, request_id: str) -> str:
    """`00001-UUID.json`: sorted by name is sorted by sequence, up to 99,999."""
    return f"{sequence:05}-{request_id}.json"


def verify_files(
    paths: Sequence[Path], keys: "Sequence[SSlibKey]", head: Head | None = None, project: str | None = None
) -> Verdict:
    """Verify certificates in the order given.

    Args:
        keys: oldest first; head: the last certificate's sequence and digest, if the caller knows it.
        project: the id of the project that they must be of; None: of any one.
    Raises: CertificateError; BadInputError if there is none, or a file cannot be read.
    """
    if not paths:
        raise BadInputError("no certificate was named; give at least one file of certificates/")
    certificates = [verify_bytes(read(path, shown(path, n, len(paths))), path.name, keys, shown(path, n, len(paths)))
             for n, path in enumerate(paths, start=1)]  # fmt: skip
    check_chain(certificates, keys)
    check_project(certificates, project)
    if head is not None:
        check_head(certificates[-1], head)
    return Verdict(tuple(certificates), certificates[0].sequence == 1, head is not None, tuple(key.keyid for key in keys))


def shown(path: Path, place: int, total: int) -> str:
    """How messages name a file: a certificate's own name, else its place, since any other name may be a person's."""
    return path.name if NAME.fullmatch(path.name) else f"certificate {place} of {total}"


def read(path: Path, where: str) -> bytes:
    """Step 1. Raises: CertificateError if the file is too large; BadInputError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise BadInputError(f"{where}: there is no such file; name a file of certificates/") from error
    except OSError as error:
        raise BadInputError(f"{where} cannot be read ({error.strerror}); name a file of certificates/") from error
    if len(data) > MAX_BYTES:
        raise CertificateError(
            f"{where} has more than {MAX_BYTES:,} bytes, the most that a certificate has; name a file of certificates/"
        )
    return data


@dataclass(frozen=True)
class Signed:
    """A statement that a known key signed. Attributes: payload: the bytes that were signed, canonical JSON."""

    statement: dict[str, Any]
    payload: bytes
    key_id: str


def signed_statement(data: bytes, predicate_type: str, keys: "Sequence[SSlibKey]", where: str) -> Signed:
    """Steps 2 to 8, for a statement of any type. Args: where: how messages call the file. Raises: CertificateError."""
    envelope = _envelope(data, where)
    if envelope.payload_type != PAYLOAD_TYPE:  # 4
        _refuse(where, f"its payload type is not {PAYLOAD_TYPE}: it is signed as something else")
    key = _signed_by(envelope, keys, where)
    statement = _json(envelope.payload, where, "payload")
    if canonical_json(statement) != envelope.payload:  # 6
        _refuse(
            where, "its payload is not canonical JSON (sorted names, no spaces, a final newline); it was not issued by lmeraser"
        )
    if not isinstance(statement, dict) or statement.get("_type") != STATEMENT_TYPE:  # 7
        _refuse(where, f"its statement is not of type {STATEMENT_TYPE}")
    if statement.get("predicateType") != predicate_type:  # 8
        _refuse(where, f"its predicate is not {predicate_type}: it is a statement about something else")
    return Signed(statement, envelope.payload, key.keyid)


def verify_bytes(data: bytes, name: str, keys: "Sequence[SSlibKey]", where: str) -> Certificate:
    """Steps 2 to 10. Args: name: of the file; where: how messages call it. Raises: CertificateError."""
    signed = signed_statement(data, PREDICATE_TYPE, keys, where)
    statement = signed.statement
    try:
        check_content(statement)  # 9
    except VerificationError as error:
        raise CertificateError(f"{where}: {error}") from error
    if len(statement) != 4:
        _refuse(where, "its statement has fields that in-toto Statement v1 does not have")
    predicate = statement["predicate"]
    expected = file_name(predicate["sequence"], predicate["request_id"])
    if name != expected:  # 10
        _refuse(
            where,
            f"its content is certificate {expected}; give the file that name again, or find the certificate that this name "
            "belongs to",
        )
    broken = predicate.get("break")
    return Certificate(
        name,
        predicate["format"],
        predicate.get("project"),
        predicate["request_id"],
        predicate["sequence"],
        signed.key_id,
        predicate["completed_at"],
        sha256(signed.payload),
        predicate["previous"],
        broken["previous_key"] if broken else None,
        tuple(predicate["subjects"]),
        tuple(predicate["limits"]),
        predicate["subject_key_id"],
        predicate.get("absence", {}).get("root"),
        predicate.get("audit_key_id"),
        predicate.get("rebuild_share"),
        tuple(predicate.get("images", ())),
        tuple(predicate.get("rectified", ())),
    )


def _refuse(where: str, why: str) -> NoReturn:
    raise CertificateError(f"{where}: {why}")


def _json(data: bytes, where: str, what: str) -> Any:
    """Step 2. Two readers may pick different values of a repeated name, so that is refused."""
    try:
        value = strict_json(data)
        canonical_json(value)  # lone surrogates and numbers beyond float: valid JSON that has no bytes
    except RepeatedNameError as error:
        raise CertificateError(f"{where}: its {what} has a name twice, so two parsers could read it differently") from error
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"{where}: its {what} is not JSON; it is damaged, or not a certificate") from error
    return value


def _plain(text: str) -> bytes:
    """Base64 in its one standard spelling (RFC 4648, section 4). Raises: ValueError."""
    data = base64.b64decode(text.encode("ascii"), validate=True)
    if base64.b64encode(data).decode() != text:
        raise binascii.Error("not the standard spelling")
    return data


def _envelope(data: bytes, where: str) -> "Envelope":
    """Steps 2 and 3."""
    from securesystemslib.dsse import Envelope

    raw = _json(data, where, "file")
    no_envelope = "it is no DSSE envelope of one signature (payload, payloadType, signatures of keyid and sig)"
    if not isinstance(raw, dict) or raw.keys() != {"payload", "payloadType", "signatures"}:
        _refuse(where, no_envelope)
    signatures = raw["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        _refuse(where, no_envelope)
    if not isinstance(signatures[0], dict) or signatures[0].keys() != {"keyid", "sig"}:
        _refuse(where, no_envelope)
    if not all(isinstance(text, str) for text in (raw["payload"], raw["payloadType"], *signatures[0].values())):
        _refuse(where, no_envelope)
    try:
        _plain(raw["payload"])
        _plain(signatures[0]["sig"])
    except ValueError as error:
        raise CertificateError(f"{where}: its payload or signature is not standard base64; it is damaged") from error
    return Envelope.from_dict(raw)


def _signed_by(envelope: "Envelope", keys: "Sequence[SSlibKey]", where: str) -> "SSlibKey":
    """Step 5."""
    from securesystemslib.exceptions import VerificationError as Unverified

    named = next(iter(envelope.signatures))
    key = next((candidate for candidate in keys if candidate.keyid == named), None)
    if key is None:
        which = f"key {named[:16]}" if re.fullmatch("[0-9a-f]{64}", named) else "a key whose id is not 64 hex digits"
        known_ids = ", ".join(candidate.keyid[:16] for candidate in keys)
        _refuse(
            where, f"it names {which} as its signer; known here: {known_ids}; get the issuer's public key and name it with --key"
        )
    try:
        envelope.verify([key], 1)
    except Unverified as error:
        raise CertificateError(
            f"{where}: the signature does not fit the content and key {key.keyid[:16]}; the certificate was changed or is forged"
        ) from error
    return key


def check_chain(certificates: Sequence[Certificate], keys: "Sequence[SSlibKey]") -> None:
    """Steps 11 to 14, for certificates that were verified one by one. Raises: CertificateError."""
    for certificate in certificates:
        if certificate.break_from == certificate.key_id:
            _refuse(certificate.file, f"it says that the key changed, but both keys are {certificate.key_id[:16]}")
    given = {certificate.sequence for certificate in certificates}
    for old, new in pairwise(certificates):
        _check_order(old.sequence, new.sequence, given)
        if new.previous != old.digest:  # 12
            raise CertificateError(
                f"certificate {new.sequence} does not name certificate {old.sequence} as the one before; one of them is of "
                "another chain"
            )
        _check_key_change(old, new, [key.keyid for key in keys])
        if new.version < old.version:
            raise CertificateError(f"certificate {new.sequence} is of format {new.version}, older than that of the one before")
    first: dict[str, int] = {}
    for certificate in certificates:  # 14
        if first.setdefault(certificate.request_id, certificate.sequence) != certificate.sequence:
            raise CertificateError(
                f"certificates {first[certificate.request_id]} and {certificate.sequence} are both for request "
                f"{certificate.request_id}; each has one"
            )


def check_project(certificates: Sequence[Certificate], project: str | None) -> None:
    """Step 15. Format 1 names no project. Raises: CertificateError."""
    for certificate in certificates:
        if certificate.project is None:
            continue
        project = project or certificate.project
        if certificate.project != project:
            raise CertificateError(
                f"certificate {certificate.sequence} is of project {certificate.project}, expected {project}; it belongs to "
                "another chain"
            )


def _check_order(old: int, new: int, given: set[int]) -> None:
    """Step 11. Args: given: every sequence, to tell what is missing from what stands elsewhere."""
    if new == old:
        raise CertificateError(f"certificate {new} was given twice, or two claim the same place in the chain")
    if new < old or (new > old + 1 and old + 1 in given):
        early, late = (old, new) if new < old else (new, old + 1)
        raise CertificateError(f"certificate {early} stands before {late}; give them in the order of their numbers")
    if new > old + 1:
        lost = f"certificate {old + 1} is" if new == old + 2 else f"certificates {old + 1} to {new - 1} are"
        raise CertificateError(f"{lost} missing between {old} and {new}; find the missing certificates and name them too")


def _check_key_change(old: Certificate, new: Certificate, keys: list[str]) -> None:
    """Step 13. Args: keys: ids, oldest first."""
    changed = new.key_id != old.key_id
    if changed and new.break_from is None:
        raise CertificateError(
            f"certificate {new.sequence} is signed with another key than {old.sequence}, without a signed break"
        )
    if new.break_from is not None and new.break_from != old.key_id:
        raise CertificateError(
            f"certificate {new.sequence} breaks with key {new.break_from[:16]}, but certificate {old.sequence} is signed with "
            f"{old.key_id[:16]}"
        )
    if changed and keys.index(old.key_id) > keys.index(new.key_id):
        raise CertificateError(
            f"certificate {new.sequence} goes back to key {new.key_id[:16]}, which is listed before the key that it replaces"
        )


def check_head(last: Certificate, head: Head) -> None:
    """Step 17. Raises: CertificateError."""
    sequence, digest = head
    if last.sequence < sequence:
        raise CertificateError(
            f"the head is certificate {sequence}, but the last one given is {last.sequence}: the newest are missing"
        )
    if last.sequence > sequence:
        raise CertificateError(f"the head is certificate {sequence}, but {last.sequence} was given too; take a newer head")
    if last.digest != digest:
        raise CertificateError(f"certificate {sequence} has the digest {last.digest[:16]}, but the head says {digest[:16]}")


def parse_head(text: str) -> Head:
    """A head from `SEQUENCE:SHA256`, or from the path of a HEAD file. Raises: BadInputError."""
    expected = "expected SEQUENCE:SHA256, or a HEAD file that holds `SEQUENCE SHA256`"
    match = HEAD.fullmatch(text)
    if not match:
        try:
            with Path(text).open("rb") as stream:
                match = HEAD.fullmatch(stream.read(200).decode("ascii"))
        except (OSError, ValueError) as error:
            raise BadInputError(f"the head is neither SEQUENCE:SHA256 nor a file that can be read; {expected}") from error
    if not match:
        raise BadInputError(f"the HEAD file is damaged; {expected}")
    return int(match["sequence"]), match["digest"]


def openssl_way(path: Path, keys: Path = Path("data/certificate-keys.pem"), number: int = 1) -> list[str]:
    """Shell lines that check one signature with OpenSSL 3, sed, awk and base64: a second opinion on step 5.

    They leave four files in the working folder, certificate.json among them: what was signed, to be read.
    Args: number: which of the keys signed, counted from 1. Source: DSSE v1.0.2, pre-authentication encoding.
    """
    file, listed = shlex.quote(str(path)), shlex.quote(str(keys))
    return [
        f"awk -v n={number} '/BEGIN PUBLIC KEY/ {{ i++ }} i == n' {listed} > certificate.pem",
        "openssl pkey -pubin -in certificate.pem -outform DER | openssl dgst -sha256 -r  # the key's id: compare it",
        f"""sed -n 's/^ *"payload": "\\([^"]*\\)",*$/\\1/p' {file} | base64 -d > certificate.json""",
        f"""sed -n 's/^ *"sig": "\\([^"]*\\)",*$/\\1/p' {file} | base64 -d > certificate.sig""",
        f"printf 'DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} %d ' \"$(wc -c < certificate.json)\" > certificate.signed",
        "cat certificate.json >> certificate.signed",
        "openssl pkeyutl -verify -pubin -inkey certificate.pem -rawin -in certificate.signed -sigfile certificate.sig",
    ]
