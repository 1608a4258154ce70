"""Issue certificates: sign what an `Erasure` says and append it to the chain in `certificates/`.

    certificates/00001-UUID.json     DSSE envelope, written first
    certificates/HEAD                `1 SHA256`, written last: a crash between the two is mended by the next call

A chain cannot show that its tail was cut, so the ledger keeps the head as well and hands it in as `expected_head`.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmeraser.core.digest import readable_json
from lmeraser.core.errors import LmeraserError, VerificationError
from lmeraser.core.files import write_atomically
from lmeraser.prove.absence import largest_proof
from lmeraser.prove.home import HEAD_FILE
from lmeraser.prove.statement import Break, Erasure, make_statement, payload_of
from lmeraser.prove.verify import (
    MAX_BYTES,
    PAYLOAD_TYPE,
    Certificate,
    Head,
    check_chain,
    check_project,
    file_name,
    parse_head,
    read,
    shown,
    verify_bytes,
)

if TYPE_CHECKING:  # 0.2 s that only signing needs
    from securesystemslib.signer._crypto_signer import CryptoSigner  # the package does not export it to mypy
    from securesystemslib.signer._key import SSlibKey

REASON = "the signing key was replaced"


def sign(statement: Mapping[str, Any], signer: "CryptoSigner") -> bytes:
    """The statement in a signed DSSE envelope, as JSON for people and `git diff`. Ed25519: the same bytes every time."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(payload_of(statement), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return readable_json(envelope.to_dict())


def read_head(folder: Path) -> Head | None:
    """What HEAD says; None if there is no HEAD. Raises: BadInputError if it is damaged."""
    path = folder / HEAD_FILE
    return parse_head(str(path)) if path.exists() else None


def read_chain(folder: Path, keys: "Sequence[SSlibKey]") -> list[Certificate]:
    """Every certificate of a folder, verified from the first on. Raises: CertificateError."""
    paths = sorted(folder.glob("*.json"), key=lambda path: (len(path.name), path.name))  # 100000 comes after 99999
    chain = []
    for place, path in enumerate(paths, start=1):
        where = shown(path, place, len(paths))
        chain.append(verify_bytes(read(path, where), path.name, keys, where))
    check_chain(chain, keys)
    if chain and chain[0].sequence != 1:
        raise VerificationError(f"the first certificate here is {chain[0].sequence}: the certificates before it are missing")
    return chain


def _check_against_heads(chain: Sequence[Certificate], written: Head | None, expected: Head | None) -> None:
    """Raise VerificationError if a head that is known is not in the chain: something was cut off or exchanged."""
    heads = {certificate.head for certificate in chain}
    if written is None and len(chain) > 1:
        raise VerificationError(f"certificates/{HEAD_FILE} is missing, so missing newest certificates would go unnoticed")
    if written is not None and written not in heads:
        raise VerificationError(
            f"certificates/{HEAD_FILE} names certificate {written[0]} ({written[1][:16]}), which is missing or has another digest"
        )
    if expected is not None and expected not in heads:
        raise VerificationError(
            f"the last certificate that the ledger knows is missing: number {expected[0]} ({expected[1][:16]})"
        )


def largest(people: int, slots: int, parts: int) -> int:
    """At most how many bytes a certificate has, in base64, if every artifact of so many slots and parts changes.

    Known before an erasure begins, so that none is carried out that cannot be certified.
    """
    pseudonym, served, changed, rest = 67, 160, 190, 24_000  # bytes of one in canonical JSON, names of 64 characters at most
    payload = people * (pseudonym + largest_proof()) + slots * (served + changed + 2 * 20) + parts * (changed + 20) + rest
    return 4 * payload // 3


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """The folder's handle, locked: two processes must not take the same sequence."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _new(
    chain: Sequence[Certificate], erasure: Erasure, signer: "CryptoSigner", keys: "Sequence[SSlibKey]"
) -> tuple[Certificate, bytes]:
    """The next certificate and its file's bytes, verified as anybody else would: nothing is written that would be refused."""
    last = chain[-1] if chain else None
    broken = None
    if last and last.key_id != signer.public_key.keyid:
        broken = Break(last.key_id, last.digest, REASON)
    sequence = last.sequence + 1 if last else 1
    data = sign(make_statement(erasure, sequence, last.digest if last else None, broken), signer)
    name = file_name(sequence, erasure.request_id)
    if len(data) > MAX_BYTES:
        raise VerificationError(f"{name} would have more than {MAX_BYTES:,} bytes; put fewer people into one request")
    made = verify_bytes(data, name, keys, name)
    check_chain([*chain, made], keys)
    return made, data


def _about(*pseudonyms: Sequence[str]) -> tuple[set[str], ...]:
    return tuple(map(set, pseudonyms))


def issue(
    folder: Path,
    erasure: Erasure,
    signer: "CryptoSigner",
    public_keys: "Sequence[SSlibKey]",
    expected_head: Head | None = None,
) -> Path:
    """Append the certificate of an erasure to the chain, once; returns its file.

    A request that has one already gets that one back, whatever else is handed in. If the signer's key is not that of the last
    certificate, the new one carries a signed break.
    Args: expected_head: of the last certificate that the ledger knows, `read_head` after the last call; None if it knows none.
    Raises: VerificationError if the chain here is broken or lacks a head that is known, or the erasure's facts break a rule.
    """
    with _alone(folder) as handle:
        try:
            chain = read_chain(folder, public_keys)
            written = read_head(folder)
            _check_against_heads(chain, written, expected_head)
            check_project(chain, erasure.project)
        except LmeraserError as error:
            raise VerificationError(
                f"nothing was signed, because the chain in certificates/ is broken: {error}; restore certificates/ and "
                "data/certificate-keys.pem from git or a backup, then run `lmeraser resume`"
            ) from error
        known = next((certificate for certificate in chain if certificate.request_id == erasure.request_id), None)
        if known is None:
            known, data = _new(chain, erasure, signer, public_keys)
            write_atomically(folder / known.file, data)
            os.fsync(handle)  # or a power cut could keep HEAD and lose the certificate
            chain = [*chain, known]
        elif _about(known.subjects, known.images, known.rectified) != _about(
            erasure.pseudonyms, erasure.images, erasure.rectified
        ):
            raise VerificationError(
                f"certificate {known.file} was issued for other subjects; use a new request id for a new request"
            )
        if written != chain[-1].head:
            write_atomically(folder / HEAD_FILE, f"{chain[-1].sequence} {chain[-1].digest}\n".encode())
            os.fsync(handle)
        return folder / known.file
