"""Which files have their turn in a part of the full scan: drawn for each day by a key, so that nobody chooses which.

A file's name (of an object: its digest) and the day give a number by HMAC-SHA-256 (RFC 2104); it has its turn if that number is
one of `share`. So a file is read about once in `share` days, and nobody without the key could tell when. Whoever has the key can
repeat the draw.
"""

import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from lmeraser.core.errors import ProjectError
from lmeraser.core.files import write_atomically

KEY_BYTES = 32


@dataclass(frozen=True)
class Turns:
    """Attributes: day: ISO 8601; share: one file of so many."""

    key: bytes = field(repr=False)
    day: str
    share: int

    def has_turn(self, name: str) -> bool:
        drawn = hmac.digest(self.key, f"{self.day}\x1f".encode() + os.fsencode(name), "sha256")
        return int.from_bytes(drawn[:8], "big") % self.share == 0


def load_or_create_audit_key(path: Path) -> bytes:
    """The key that draws; made once. Raises: ProjectError if it is damaged, or readable by others."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, secrets.token_bytes(KEY_BYTES), mode=0o600)
    mode, key = stat.S_IMODE(path.stat().st_mode), path.read_bytes()
    if mode & 0o077:
        raise ProjectError(f"the audit key {path.name} has mode {mode:04o}, expected 0600; run `chmod 600` on it")
    if len(key) != KEY_BYTES:
        raise ProjectError(
            f"the audit key {path.name} has {len(key)} bytes, expected {KEY_BYTES}; restore it from your backup, or delete it: "
            "a new one draws other days and chooses other rebuilds, and certificates show that it was replaced"
        )
    return key
