"""Where certificates are at home: a project's folder holds what they are checked with beside them.

    PROJECT/certificates/00001-UUID.json, HEAD
    PROJECT/data/certificate-keys.pem, project-id

Keys are taken from there and from nowhere else: a file of keys that lies further up belongs to something else.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmeraser.core.errors import BadInputError, ProjectError
from lmeraser.core.files import write_atomically
from lmeraser.prove.verify import NAME, Certificate, CertificateError, parse_head

FOLDER, HEAD_FILE = "certificates", "HEAD"
ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Home:
    """The project that certificates lie in."""

    root: Path

    @classmethod
    def of(cls, certificates: Sequence[Path]) -> "Home":
        """Raises: ProjectError if they lie in no project; BadInputError if in several."""
        folders = {path.resolve().parent for path in certificates}
        if len(folders) != 1:
            raise BadInputError(
                "the certificates are in several folders; verify each project's separately, or name the keys with --key"
            )
        folder = folders.pop()
        home = cls(folder.parent)
        if folder.name != FOLDER or not home.keys.is_file():
            raise ProjectError(
                "the certificate is not in a project (PROJECT/certificates, with data/certificate-keys.pem beside that folder); "
                "name the issuer's keys with --key"
            )
        return home

    @property
    def keys(self) -> Path:
        return self.root / "data" / "certificate-keys.pem"

    @property
    def certificates(self) -> Path:
        return self.root / FOLDER

    def project(self) -> str | None:
        """The project's id; None where it was made before there were ids. Raises: ProjectError."""
        return read_project_id(self.root / "data" / "project-id")


def read_project_id(path: Path) -> str | None:
    """16 hex digits; None if there is no file. Raises: ProjectError if it is damaged."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        text = ""
    if not ID.fullmatch(text):
        raise ProjectError("data/project-id is damaged; expected 16 hex digits: restore it from git")
    return text


def load_or_create_project_id(path: Path) -> str:
    """The project's id, drawn at random once."""
    known = read_project_id(path)
    if known is None:
        known = secrets.token_hex(8)
        write_atomically(path, f"{known}\n".encode())
    return known


def check_head_file(folder: Path, certificates: Sequence[Certificate], at_home: bool) -> None:
    """Step 16: the certificate that HEAD names is there, and it is the one that it names.

    Args: folder: that holds the certificates; at_home: HEAD must be there too, unless there is but one certificate.
    Raises: CertificateError; BadInputError if HEAD is damaged.
    """
    path = folder / HEAD_FILE
    sequences = {int(match["sequence"]) for path in folder.glob("*.json") if (match := NAME.fullmatch(path.name))}
    if not path.exists():
        if at_home and len(sequences) > 1:
            raise CertificateError(
                f"{FOLDER}/{HEAD_FILE} is missing, so missing newest certificates would go unnoticed; restore it from git"
            )
        return
    sequence, digest = parse_head(str(path))
    if sequence not in sequences:
        raise CertificateError(
            f"{FOLDER}/{HEAD_FILE} names certificate {sequence}, which is missing; restore the newest certificates from git"
        )
    lost = sorted(set(range(1, sequence)) - sequences)
    if at_home and lost:
        raise CertificateError(f"certificate {lost[0]} is missing from {FOLDER} ({len(lost)} in all); restore it from git")
    for certificate in certificates:
        if certificate.sequence == sequence and certificate.digest != digest:
            raise CertificateError(
                f"{FOLDER}/{HEAD_FILE} names certificate {sequence} with the digest {digest[:16]}, "
                f"this one has {certificate.digest[:16]}"
            )
