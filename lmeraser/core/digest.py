"""Digests, canonical JSON and seeds.

Everything that decides an artifact's bytes goes through here, so that nothing depends on history, row numbers or the
order in which records came.
"""

import hashlib
import json
from pathlib import Path
from typing import Any


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


def number_of_shard(subject: str) -> int:
    """The 64-bit number from which a subject's shard follows: another hash than the part's.

    With the same one, in one part of four three of four shards would be empty.
    """
    return number_from("shard", subject)


def shard_of(subject: str, n_shards: int) -> int:
    """The shard in [0, n_shards) of its part that holds a subject's records: a function of the subject alone."""
    return number_of_shard(subject) % n_shards
