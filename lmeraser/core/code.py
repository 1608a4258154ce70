"""Which code makes artifacts: its digest tells a warm process, or a commit of DVC, that the code is still the same."""

from pathlib import Path

from lmeraser.core.digest import sha256, sha256_of_file

FOLDERS = ("lmeraser", "stages")  # all of both: a list by hand forgets what a stage comes to import


def code_digest(root: Path) -> str:
    """Digest of every file of the code that a stage can run."""
    files = sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py"))
    return sha256("".join(f"{path.relative_to(root)} {sha256_of_file(path)}\n" for path in files).encode())
