"""Which code counts: what makes artifacts, by whose digest a warm process or a commit of DVC tells that it is still the same, and
the whole product.

What can move the bytes of one stage is told file by file in dvc.yaml; a test compares it with what the stage imports.
"""

from collections.abc import Sequence
from pathlib import Path

from lmeraser.core.digest import sha256, sha256_of_file

FOLDERS = ("lmeraser", "stages")  # all of both: a list by hand forgets what a stage comes to import
PACKAGES = (*FOLDERS, "flows")  # the product: certificates name the commit of these


def code_digest(root: Path, folders: Sequence[str] = FOLDERS) -> str:
    """Digest of every file of the code that a stage can run, or of other folders."""
    files = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    return sha256("".join(f"{path.relative_to(root)} {sha256_of_file(path)}\n" for path in files).encode())
