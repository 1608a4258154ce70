"""What an exported model says of itself: an in-toto Statement v1 in a signed envelope, as certificates have; and its check.

    EXPORT/export.json      DSSE envelope; names every other file of the folder with its SHA-256
    EXPORT/README.md        the model card
    EXPORT/params.yaml      without the source; EXPORT/artifacts/...: what the served model is made of

The version of an export is that of the served model (`lmeraser/serve/version.py`), as its answers name it: two exports of one
model have one version, whenever they were made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lmeraser.core.digest import sha256_of_file
from lmeraser.core.errors import BadInputError, VerificationError
from lmeraser.core.layout import EXPORT_FILE, Layout
from lmeraser.prove.statement import (
    COUNT,
    NUMBER,
    SHA256,
    SHORT_ID,
    STATEMENT_TYPE,
    SUBJECT,
    TEXT,
    UTC_TIME,
    Map,
    check_rule,
    or_null,
)
from lmeraser.prove.verify import CertificateError, read, signed_statement

if TYPE_CHECKING:  # 0.2 s that only verifying needs
    from securesystemslib.signer._key import SSlibKey  # the package does not export it to mypy

EXPORT_TYPE = "urn:lmeraser:export:v1"
CARD_FILE = "README.md"
MODEL = "artifacts"  # the folder in which nothing may lie that the statement does not name
FORMAT = 1
PREDICATE: dict[str, Any] = {
    "format": NUMBER,
    "project": or_null(SHORT_ID),
    "model_version": SHA256,
    "exported_at": UTC_TIME,
    "certificates": {"count": COUNT, "head": or_null(SHA256)},
    "audits": Map(TEXT, TEXT),
    "environment": Map(TEXT, TEXT),
    "environment_fingerprint": SHORT_ID,
    "code_revision": TEXT,
    "holder": [TEXT],
    "limits": [TEXT],
}
HOLDER = (
    "Ask the issuer for the newest version before each use that matters, and at least once a month.",
    "When a newer version appears, replace this copy by it and delete this one and all that was made from it, within the time "
    "that was agreed with the issuer: a person may have been erased in between, and this copy still knows them.",
    "Pass a copy on only with these duties, and tell the issuer to whom.",
)
LIMITS = (
    "It shows who issued these files and that nobody changed them since; not that the issuer told the truth.",
    "It says what was erased before the export. It cannot say whether a newer version is there.",
)


@dataclass(frozen=True)
class Exported:
    """What an export says of itself.

    Attributes: project: its id, None before the first certificate; exported_at: ISO 8601 with the offset of UTC.
    model_version: of the served model; certificates, head: how many there were, and the SHA-256 of the last.
    audits: the last of each kind, in words.
    """

    model_version: str
    project: str | None
    exported_at: str
    certificates: int
    head: str | None
    audits: Mapping[str, str]
    environment: Mapping[str, str]
    fingerprint: str
    code_revision: str


def make_export_statement(exported: Exported, files: Mapping[str, str]) -> dict[str, Any]:
    """Args: files: path in the export to SHA-256. Raises: VerificationError if a value breaks its rule."""
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": path, "digest": {"sha256": digest}} for path, digest in sorted(files.items())],
        "predicateType": EXPORT_TYPE,
        "predicate": {
            "format": FORMAT,
            "project": exported.project,
            "model_version": exported.model_version,
            "exported_at": exported.exported_at,
            "certificates": {"count": exported.certificates, "head": exported.head},
            "audits": dict(exported.audits),
            "environment": dict(exported.environment),
            "environment_fingerprint": exported.fingerprint,
            "code_revision": exported.code_revision,
            "holder": list(HOLDER),
            "limits": list(LIMITS),
        },
    }
    _check_content(statement)
    return statement


def _check_content(statement: Mapping[str, Any]) -> None:
    """Raises: VerificationError; it tells the field and what was expected, never the value."""
    check_rule(statement.get("subject"), SUBJECT, "subject", FORMAT)
    check_rule(statement.get("predicate"), PREDICATE, "predicate", FORMAT)
    if len({subject["name"] for subject in statement["subject"]}) != len(statement["subject"]):
        raise VerificationError("subject names a file twice")


@dataclass(frozen=True)
class CheckedExport:
    """An export that was verified. Attributes: files: how many its statement names; others: that lie beside them, unnamed."""

    model_version: str
    exported_at: str
    certificates: int
    head: str | None
    key_id: str
    files: int
    others: int
    holder: tuple[str, ...]
    limits: tuple[str, ...]


def check_export(folder: Path, keys: "Sequence[SSlibKey]", where: str = "the export") -> CheckedExport:
    """Check the signature, the statement, and each file that it names.

    Raises: CertificateError; BadInputError if the folder is no export.
    """
    if not Layout(folder).is_export:
        raise BadInputError(f"{where} holds no {EXPORT_FILE}; name a folder that `lmeraser export` wrote")
    signed = signed_statement(read(folder / EXPORT_FILE, EXPORT_FILE), EXPORT_TYPE, keys, EXPORT_FILE)
    try:
        _check_content(signed.statement)
    except VerificationError as error:
        raise CertificateError(f"{EXPORT_FILE}: {error}") from error
    named = {subject["name"]: subject["digest"]["sha256"] for subject in signed.statement["subject"]}
    for path, digest in named.items():
        _check_file(folder, path, digest)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
    others = there - named.keys() - {EXPORT_FILE}
    foreign = sum(PurePosixPath(path).parts[0] == MODEL for path in others)
    if foreign:
        raise CertificateError(
            f"{MODEL}/ holds {foreign} files that {EXPORT_FILE} does not name; delete the copy and get a new one"
        )
    predicate = signed.statement["predicate"]
    return CheckedExport(
        predicate["model_version"],
        predicate["exported_at"],
        predicate["certificates"]["count"],
        predicate["certificates"]["head"],
        signed.key_id,
        len(named),
        len(others),
        tuple(predicate["holder"]),
        tuple(predicate["limits"]),
    )


def _check_file(folder: Path, path: str, digest: str) -> None:
    """Args: path: below the folder, as a rule of the statement allows it."""
    inside = folder / path
    if inside.is_symlink() or not inside.is_file():
        raise CertificateError(f"{path} is missing, or no file; delete the copy and get a new one")
    if sha256_of_file(inside) != digest:
        raise CertificateError(f"{path} is not the file that was signed; delete the copy and get a new one")
