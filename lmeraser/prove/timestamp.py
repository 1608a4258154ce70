"""RFC 3161 timestamps of certificates: what an authority is asked, and whether what it answered is about a certificate.

    certificates/00001-UUID.json     the certificate
    certificates/00001-UUID.tsr      the authority's answer, as it came: a signed "I saw this digest at that time"

What is stamped is the SHA-256 of the certificate's file, so `openssl ts -verify -data CERTIFICATE -in TIMESTAMP` says the same.
Two looks. `check_answer`, as it comes: 1 of at most 64 KiB, 2 an RFC 3161 answer, 3 granted, 4 about these very bytes by a SHA-2,
5 with the nonce that was sent. `verify_timestamp`, for whoever knows the authority's roots: these, and 6 signed by one
certificate for time-stamping that leads to a root and was valid at that time. Only the second shows who said it.

Sources: RFC 3161, RFC 5816; rfc3161-client (github.com/trailofbits/rfc3161-client), which sigstore-python uses.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING

from lmeraser.core.digest import sha256
from lmeraser.core.errors import BadInputError
from lmeraser.prove.verify import CertificateError

if TYPE_CHECKING:  # 0.1 s that only who stamps or checks needs
    from cryptography.x509 import Certificate
    from rfc3161_client import TimeStampRequest, TimeStampResponse

SUFFIX = ".tsr"
MAX_BYTES = 2**16
QUERY_TYPE = "application/timestamp-query"
HASHES = {  # by object identifier: an issuer may have had a certificate stamped by other tools
    "2.16.840.1.101.3.4.2.1": hashlib.sha256,
    "2.16.840.1.101.3.4.2.2": hashlib.sha384,
    "2.16.840.1.101.3.4.2.3": hashlib.sha512,
}
CHAIN_REASON = re.compile(r"[Vv]erify error: ?([a-zA-Z -]+)")


@dataclass(frozen=True)
class Timestamp:
    """What an authority said. Attributes: at: ISO 8601, UTC, seconds; digest: SHA-256 of the answer's bytes.
    authority: the subject of the certificate that signed it, as RFC 4514 writes it; None where nobody checked who did.
    """

    at: str
    digest: str
    authority: str | None = None


def timestamp_path(certificate: Path) -> Path:
    """Where a certificate's timestamp lies: beside it."""
    return certificate.with_suffix(SUFFIX)


def make_request(data: bytes) -> "TimeStampRequest":
    """What an authority is sent about a certificate's bytes: their SHA-256 and a random nonce, nothing else."""
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    return TimestampRequestBuilder(data, HashAlgorithm.SHA256, nonce=True, cert_req=True).build()


def read_timestamp(path: Path, where: str) -> bytes:
    """Raises: CertificateError if there is none or it is too large; BadInputError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise CertificateError(
            f"{where}: no timestamp lies beside it (the same name, ending in {SUFFIX}); get it from the issuer, or leave "
            "--tsa-root out"
        ) from error
    except OSError as error:
        raise BadInputError(
            f"{where}: the timestamp beside it cannot be read ({error.strerror}); check its permissions"
        ) from error
    return data


def check_answer(answer: bytes, data: bytes, nonce: int | None, where: str) -> Timestamp:
    """Steps 1 to 5: what can be told of an answer without roots. Who signed it, and whether anybody did, is not looked at.

    Args: data: the certificate's file; nonce: that was sent, None where nobody knows it any more; where: how messages call it.
    Raises: CertificateError.
    """
    return _checked(answer, data, nonce, where)[1]


def verify_timestamp(
    answer: bytes, data: bytes, roots: "Sequence[Certificate]", where: str, nonce: int | None = None
) -> Timestamp:
    """Steps 1 to 6. Args: roots: of the authority; the others as of `check_answer`. Raises: CertificateError."""
    from rfc3161_client import VerificationError, VerifierBuilder

    response, stamp = _checked(answer, data, nonce, where)
    verifier = VerifierBuilder(roots=list(roots)).build()
    with _hostile(where, "the signature of its timestamp cannot be read"):
        try:
            verifier.verify_message(response, data)
        except VerificationError as error:
            reason = CHAIN_REASON.search(str(error))
            told = f" ({reason[1].strip()})" if reason else ""
            raise CertificateError(
                f"{where}: its timestamp is not signed by an authority of these roots that was valid then{told}; name the roots "
                "of the authority that the issuer uses, or do not trust this time"
            ) from error
        return Timestamp(stamp.at, stamp.digest, _signer(response))


def load_roots(path: Path, where: str) -> "list[Certificate]":
    """Every certificate of a PEM file. Args: where: the option or param that names it. Raises: BadInputError."""
    from cryptography.x509 import load_pem_x509_certificates

    try:
        roots = load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise BadInputError(f"{where}: the file cannot be read ({error.strerror}); name a PEM file of certificates") from error
    except ValueError as error:
        raise BadInputError(f"{where}: the file holds no certificate; name a PEM file of the authority's roots") from error
    return list(dict.fromkeys(roots))


def _checked(answer: bytes, data: bytes, nonce: int | None, where: str) -> "tuple[TimeStampResponse, Timestamp]":
    from rfc3161_client import PKIStatus, decode_timestamp_response

    if len(answer) > MAX_BYTES:  # 1
        raise CertificateError(f"{where}: its timestamp has more than {MAX_BYTES:,} bytes, the most that is read")
    with _hostile(where, "what should be its timestamp is no RFC 3161 answer; it is damaged, or something else"):  # 2
        response = decode_timestamp_response(answer)
        status = response.status
    if status != PKIStatus.GRANTED:  # 3
        raise CertificateError(f"{where}: the authority did not grant a timestamp (status {status}, expected 0)")
    with _hostile(where, "what should be its timestamp is no RFC 3161 answer; it is damaged, or something else"):
        told = response.tst_info
        algorithm, imprint = told.message_imprint.hash_algorithm.dotted_string, told.message_imprint.message
        at, answered = told.gen_time.astimezone(UTC).isoformat(timespec="seconds"), told.nonce
    if algorithm not in HASHES or imprint != HASHES[algorithm](data).digest():  # 4
        raise CertificateError(
            f"{where}: its timestamp is about other bytes: it belongs to another certificate, or one of the two was changed"
        )
    if nonce is not None and answered != nonce:  # 5
        raise CertificateError(f"{where}: the timestamp has another nonce than was sent: it answers another question")
    return response, Timestamp(at, sha256(answer))


@contextmanager
def _hostile(where: str, what: str) -> Iterator[None]:
    """Whatever an answer of somebody else does to the parser is a refusal: Rust's panics are no Exceptions."""
    try:
        yield
    except CertificateError:
        raise
    except Exception as error:  # (ValueError, and what a library raises for odd ASN.1)
        raise CertificateError(f"{where}: {what}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise CertificateError(f"{where}: {what}") from None


def _signer(response: "TimeStampResponse") -> str | None:
    """The subject of the one certificate that signed, as text without anything that a terminal acts on."""
    from cryptography.x509 import load_der_x509_certificate

    (signer,) = response.signed_data.signer_infos
    for certificate in map(load_der_x509_certificate, response.signed_data.certificates):
        if (certificate.issuer, certificate.serial_number) == (signer.issuer, signer.serial_number):
            name = certificate.subject.rfc4514_string()
            return "".join(letter if letter.isprintable() else "?" for letter in name)[:200]
    return None
