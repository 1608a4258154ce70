"""Digests, canonical JSON, seeds and whole-or-nothing writes.

Everything that decides an artifact's bytes goes through here, so that nothing depends on history, row numbers or the
order in which records came.
"""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

DRAFT = ".writing-"  # how the name of a file begins that has not taken its place yet


def sha256(data: bytes) -> str:
    """SHA-256 (FIPS 180-4) as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """One spelling for one value: sorted keys, no spaces, UTF-8, a final newline."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def readable_json(value: Any) -> bytes:
    """Like `canonical_json`, indented for people and for `git diff`."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def number_from(*parts: str | int) -> int:
    """A uniform 64-bit number that is a function of the parts alone (BLAKE2b, RFC 7693)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def seed_for(root: int, name: str) -> int:
    """The seed of one named use: derived from the root seed and a fixed name, never from counts."""
    return number_from("seed", root, name) % 2**63


def part_of(subject: str, n_parts: int) -> int:
    """The part in [0, n_parts) that holds a subject's records: a function of the subject alone."""
    return number_from("part", subject) % n_parts


def sync_folder(folder: Path) -> None:
    """Put a folder's entries on the disk: a file's own fsync keeps its bytes, not its name."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot sync a folder
            raise
    finally:
        os.close(handle)


def _make_folder(folder: Path) -> None:
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_folder(made.parent)


def write_whole(path: Path, write: Callable[[Path], None] | bytes, mode: int = 0o644) -> None:
    """Write a file so that a reader finds the old one or the new one, never a half (also after a kill, a full disk or a power
    cut: when this returns, bytes and name are on the disk).

    Args:
        write: the bytes, or a function that writes them to the path that it is given.
    """
    _make_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=DRAFT)
    os.close(handle)
    draft = Path(name)
    try:
        if isinstance(write, bytes):
            draft.write_bytes(write)
        else:
            write(draft)
        draft.chmod(mode)
        with draft.open("rb+") as stream:
            os.fsync(stream.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)
