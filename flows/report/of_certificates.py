"""Each certificate, and whether it verifies now: offline, by the steps of `lmeraser/prove/verify.py`."""

import base64
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmeraser.core.errors import LmeraserError
from lmeraser.core.layout import Layout
from lmeraser.prove.home import check_head_file, read_project_id
from lmeraser.prove.keys import load_public
from lmeraser.prove.verify import NAME, Certificate, Head, check_chain, check_project, read, shown, verify_bytes
from lmeraser.report.facts import CertificateFacts, ChainFacts, Work

if TYPE_CHECKING:
    from securesystemslib.signer._key import SSlibKey

NO_KEYS = "the public keys (data/certificate-keys.pem) are missing or damaged, so nothing can be verified"


@dataclass(frozen=True)
class Verified:
    """What came of all certificates. Attributes: predicates: of those that verify, in their order."""

    chain: ChainFacts
    files: tuple[CertificateFacts, ...] = ()
    predicates: tuple[Mapping[str, Any], ...] = ()


def verify_all(layout: Layout, known: Head | None) -> Verified:
    """Args: known: the newest certificate that the ledger knows. A certificate that does not verify is told, and no error."""
    paths = sorted(layout.certificates.glob("*.json"), key=lambda path: (len(path.name), path.name))
    if not paths:
        lost = f"the ledger knows certificate {known[0]}, and certificates/ is empty" if known else None
        return Verified(ChainFacts(lost))
    keys = _keys(layout)
    valid: list[Certificate] = []
    facts: list[CertificateFacts] = []
    predicates: list[Mapping[str, Any]] = []
    for place, path in enumerate(paths, start=1):
        where = shown(path, place, len(paths))
        try:
            data = read(path, where)
            certificate = verify_bytes(data, path.name, keys, where) if keys else None
            problem = None if certificate else NO_KEYS
        except LmeraserError as error:
            certificate, problem = None, str(error).removeprefix(f"{where}: ")
        facts.append(_told(path, where, certificate, problem))
        if certificate:
            valid.append(certificate)
            predicates.append(json.loads(base64.b64decode(json.loads(data)["payload"]))["predicate"])
    return Verified(_chain(layout, valid, keys, len(paths), known), tuple(facts), tuple(predicates))


def work_of(predicates: Sequence[Mapping[str, Any]]) -> tuple[Work, ...]:
    """What each erasure cost, as its certificate says: for where there is no ledger, which counts what requests share once."""
    return tuple(
        Work(
            predicate["completed_at"],
            1,
            len(predicate["subjects"]),
            len(predicate["plan"]["slots_retrained"]),
            predicate["plan"]["clusters_total"],
            predicate["plan"]["records_retrained"],
            predicate["plan"]["records_total"],
            None,
            predicate["plan"]["rebuild"],
        )
        for predicate in predicates
    )


def erasures_of(predicates: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many certificates say that they retrained each slot."""
    return dict(Counter(slot for predicate in predicates for slot in predicate["plan"]["slots_retrained"]))


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
