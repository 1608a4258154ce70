"""Each certificate, and whether it verifies now: offline, by the steps of `lmeraser/prove/verify.py`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmeraser.core.errors import LmeraserError
from lmeraser.core.layout import Layout
from lmeraser.prove.home import check_head_file, read_project_id
from lmeraser.prove.keys import load_public
from lmeraser.prove.verify import NAME, Certificate, Head, check_chain, check_project, read, shown, verify_bytes
from lmeraser.report.facts import CertificateFacts, ChainFacts

if TYPE_CHECKING:
    from securesystemslib.signer._key import SSlibKey

NO_KEYS = "the public keys (data/certificate-keys.pem) are missing or damaged, so nothing can be verified"


def verify_all(layout: Layout, known: Head | None) -> tuple[tuple[CertificateFacts, ...], ChainFacts]:
    """Args: known: the newest certificate that the ledger knows. A certificate that does not verify is told, and no error."""
    paths = sorted(layout.certificates.glob("*.json"), key=lambda path: (len(path.name), path.name))
    if not paths:
        lost = f"the ledger knows certificate {known[0]}, and certificates/ is empty" if known else None
        return (), ChainFacts(lost)
    keys = _keys(layout)
    valid: list[Certificate] = []
    facts = []
    for place, path in enumerate(paths, start=1):
        where = shown(path, place, len(paths))
        try:
            certificate = verify_bytes(read(path, where), path.name, keys, where) if keys else None
            problem = None if certificate else NO_KEYS
        except LmeraserError as error:
            certificate, problem = None, str(error).removeprefix(f"{where}: ")
        facts.append(_told(path, where, certificate, problem))
        valid += [certificate] if certificate else []
    return tuple(facts), _chain(layout, valid, keys, len(paths), known)


def _keys(layout: Layout) -> "Sequence[SSlibKey]":
    try:
        return load_public(layout.public_keys)
    except LmeraserError:
        return ()


def _told(path: Path, where: str, certificate: Certificate | None, problem: str | None) -> CertificateFacts:
    if certificate is None:
        named = NAME.fullmatch(path.name)
        ours = (int(named["sequence"]), named["request_id"]) if named else (None, None)
        return CertificateFacts(where, problem, *ours)
    return CertificateFacts(
        certificate.file, None, certificate.sequence, certificate.request_id, certificate.completed_at, certificate.key_id
    )


def _chain(
    layout: Layout, valid: Sequence[Certificate], keys: "Sequence[SSlibKey]", files: int, known: Head | None
) -> ChainFacts:
    problem = None
    try:
        if len(valid) < files:
            raise LmeraserError(f"{files - len(valid)} of {files} certificates do not verify, so the chain is broken there")
        if valid[0].sequence != 1:
            raise LmeraserError(f"the first certificate is {valid[0].sequence}: those before it are missing")
        check_chain(valid, keys)
        check_project(valid, read_project_id(layout.project_id))
        check_head_file(layout.certificates, valid, at_home=True)
        if known and known not in {certificate.head for certificate in valid}:
            raise LmeraserError(f"certificate {known[0]}, which the ledger knows, is missing or has another digest")
    except LmeraserError as error:
        problem = str(error)
    last = valid[-1] if valid else None
    limits = dict.fromkeys(limit for certificate in valid for limit in certificate.limits)
    ids = tuple(key.keyid if re.fullmatch("[0-9a-f]{64}", key.keyid) else "?" for key in keys)
    return ChainFacts(problem, last.head if last else None, ids, tuple(limits), bool(last and known == last.head))
