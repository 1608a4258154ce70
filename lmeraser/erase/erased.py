"""Erased subjects and images, kept out for ever by keyed hashes (HMAC-SHA-256, RFC 2104): no re-import can bring them back.

The list (`data/erased.json`) is in git; the key is not, and without it the list tells nobody who was erased. The list
decides only who is left out: no artifact's bytes depend on it otherwise.

A pseudonym is of a subject (64 hex digits) or of an image (`image:` before them: a keyed hash of its SHA-256). A subject is out
with all records; an image is out whoever's record holds it. A correction (`corrected:`, see `corrections.py`) keeps a value out
that was wrong: the record is there with the right one.

A branch, a reset or a stash can take people off the list in git, so the machine remembers them too (`.lmeraser/erased.json`).
Both together keep people out.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lmeraser.core.digest import readable_json
from lmeraser.core.errors import ProjectError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout

KEY_VARIABLE = "LMERASER_SUBJECT_KEY_FILE"
KEY_BYTES = 32
BLOCK = 64  # bytes that SHA-256 takes at once: no key is longer
PSEUDONYM = re.compile(r"[0-9a-f]{64}")
IMAGE = "image:"  # before the pseudonym of an image
CORRECTED = "corrected:"  # before the five keyed hashes of a correction
CORRECTION = re.compile(r"[0-9a-f]{64}(:[0-9a-f]{64}){4}")


def images_among(pseudonyms: Iterable[str]) -> frozenset[str]:
    """Those pseudonyms that are of images."""
    return frozenset(pseudonym for pseudonym in pseudonyms if pseudonym.startswith(IMAGE))


def people_among(pseudonyms: Iterable[str]) -> frozenset[str]:
    """Those pseudonyms that are of subjects."""
    return frozenset(pseudonym for pseudonym in pseudonyms if not pseudonym.startswith((IMAGE, CORRECTED)))


def corrections_among(pseudonyms: Iterable[str]) -> frozenset[str]:
    """Those pseudonyms that are corrections."""
    return frozenset(pseudonym for pseudonym in pseudonyms if pseudonym.startswith(CORRECTED))


def concerned(pseudonyms: Iterable[str]) -> frozenset[str]:
    """The pseudonyms, and those of the subjects whose records are corrected: a hold on them is on the correction too."""
    named = frozenset(pseudonyms)
    return named | {text.removeprefix(CORRECTED).partition(":")[0] for text in corrections_among(named)}


class KeyedHash:
    """HMAC-SHA-256 (RFC 2104, section 4) of many messages that begin alike, under one key.

    What the key's blocks and the beginning come to is computed once: `hmac.digest` does it for each message, which takes twice as
    long, and a request hashes everybody several times.
    """

    def __init__(self, secret: bytes, beginning: bytes) -> None:
        block = secret.ljust(BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + beginning)
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def hexdigest(self, rest: str) -> str:
        """64 hex digits. Args: rest: what follows the beginning."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(rest.encode())
        outer.update(inner.digest())
        return outer.hexdigest()


@dataclass(frozen=True)
class SubjectKey:
    """The secret that turns a subject into a pseudonym. Never printed, logged or committed."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """16 hex digits that name the key without telling it."""
        return hmac.digest(self.secret, b"key-id", "sha256").hex()[:16]

    def pseudonym(self, subject: str) -> str:
        """The subject's HMAC, 64 hex digits."""
        return self._of_subject.hexdigest(subject)

    def image_pseudonym(self, digest: str) -> str:
        """An image's HMAC, with `image:` before it. Args: digest: SHA-256 of its bytes, 64 hex digits."""
        return IMAGE + self._of_image.hexdigest(digest)

    @cached_property
    def _of_subject(self) -> KeyedHash:
        return KeyedHash(self.secret, b"subject\x1f")

    @cached_property
    def _of_image(self) -> KeyedHash:
        return KeyedHash(self.secret, b"image\x1f")

    def label_pseudonym(self, label: str) -> str:
        """A label's HMAC, 64 hex digits."""
        return hmac.digest(self.secret, b"label\x1f" + label.encode(), "sha256").hex()

    def row_pseudonym(self, digest: str, label: str, subject: str) -> str:
        """The HMAC of an image under a label and a subject, 64 hex digits. Args: digest: SHA-256 of its bytes."""
        return hmac.digest(self.secret, "\x1f".join(("row", digest, label, subject)).encode(), "sha256").hex()


def key_path(private_state: Path) -> Path:
    """Where the key lies: the file that LMERASER_SUBJECT_KEY_FILE names, or the project's private folder."""
    named = os.environ.get(KEY_VARIABLE)
    return Path(named) if named else private_state / "subject.key"


def load_key(path: Path) -> SubjectKey:
    """Raises: ProjectError if the key is missing, damaged, or readable by others."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        secret = path.read_bytes()
    except FileNotFoundError as error:
        raise ProjectError(
            f"the subject key {path.name} is missing; restore it from your backup "
            f"(or point {KEY_VARIABLE} at it): without it erased subjects cannot be recognised"
        ) from error
    except OSError as error:
        raise ProjectError(f"the subject key {path.name} cannot be read ({error.strerror}); expected a file") from error
    if mode & 0o077:
        raise ProjectError(f"the subject key {path.name} has mode {mode:04o}, expected 0600; run `chmod 600` on it")
    if len(secret) != KEY_BYTES:
        raise ProjectError(
            f"the subject key {path.name} has {len(secret)} bytes, expected {KEY_BYTES}; restore it from your backup"
        )
    return SubjectKey(secret)


def load_or_create_key(path: Path) -> SubjectKey:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, secrets.token_bytes(KEY_BYTES), mode=0o600)
    return load_key(path)


@dataclass(frozen=True)
class ErasedList:
    """Args: key_id: of the key that made the pseudonyms; None while nobody is erased. pseudonyms: of subjects and of images,
    and corrections."""

    key_id: str | None
    pseudonyms: frozenset[str]

    @classmethod
    def known(cls, layout: Layout) -> "ErasedList":
        """Everybody whom the branch's list or this machine's memory keeps out.

        Raises: ProjectError if a list is damaged, or if they were made with different keys.
        """
        branch, memory = cls.read(layout.erased), cls.remembered(layout)
        if branch.pseudonyms and memory.pseudonyms and branch.key_id != memory.key_id:
            raise ProjectError(
                f"data/erased.json was made with subject key {branch.key_id}, but this machine's with "
                f"{memory.key_id}; restore the list and the key that belong together"
            )
        return cls(branch.key_id or memory.key_id, branch.pseudonyms | memory.pseudonyms)

    @classmethod
    def remembered(cls, layout: Layout) -> "ErasedList":
        """This machine's memory; nobody where it erased nobody."""
        path = layout.erased_memory
        return cls.read(path) if path.exists() else cls(None, frozenset())

    @classmethod
    def read(cls, path: Path) -> "ErasedList":
        shown = f"{path.parent.name}/{path.name}"
        origin = "git" if path.parent.name == "data" else "your backup"
        try:
            raw = json.loads(path.read_bytes())
            key_id, subjects = raw["key_id"], raw["subjects"]
            images = raw.get("images", [])  # as it was before images could be erased
            corrections = raw.get("corrections", [])  # as it was before records could be corrected
            lists = all(isinstance(listed, list) for listed in (subjects, images, corrections))
            whole = lists and all(isinstance(text, str) and PSEUDONYM.fullmatch(text) for text in (*subjects, *images))
            whole = whole and all(isinstance(text, str) and CORRECTION.fullmatch(text) for text in corrections)
            if not whole or not (key_id is None or isinstance(key_id, str)):
                raise ValueError("not a list of pseudonyms")
            others = {IMAGE + text for text in images} | {CORRECTED + text for text in corrections}
            listed = cls(key_id, frozenset(subjects) | others)
        except FileNotFoundError as error:
            raise ProjectError(f"{shown} is missing; restore it from {origin}: it keeps erased subjects out") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProjectError(f"{shown} is damaged; restore it from {origin}: it keeps erased subjects out") from error
        if listed.pseudonyms and listed.key_id is None:
            raise ProjectError(f"{shown} lists subjects but no key_id; restore it from {origin}")
        return listed

    def write(self, path: Path, mode: int = 0o644) -> None:
        images = sorted(pseudonym.removeprefix(IMAGE) for pseudonym in images_among(self.pseudonyms))
        corrections = sorted(text.removeprefix(CORRECTED) for text in corrections_among(self.pseudonyms))
        listed = {"key_id": self.key_id, "subjects": sorted(people_among(self.pseudonyms))}
        more = {"images": images, "corrections": corrections}
        write_atomically(path, readable_json(listed | {name: those for name, those in more.items() if those}), mode)

    def remember(self, layout: Layout) -> None:
        """Let this machine remember everybody on the list."""
        if self.pseudonyms and ErasedList.remembered(layout) != self:
            layout.private_state.mkdir(exist_ok=True, mode=0o700)
            self.write(layout.erased_memory, 0o600)

    def keep(self, layout: Layout) -> None:
        """Write both lists where they lack somebody, this machine's first: no crash and no branch can take somebody off both."""
        self.remember(layout)
        if ErasedList.read(layout.erased) != self:
            self.write(layout.erased)

    def add(self, pseudonyms: Iterable[str], key: SubjectKey) -> "ErasedList":
        self.check_key(key)
        return ErasedList(key.id, self.pseudonyms | frozenset(pseudonyms))

    def check_key(self, key: SubjectKey) -> None:
        """Raise ProjectError if the list was made with another key: nobody on it would be recognised."""
        if self.pseudonyms and self.key_id != key.id:
            raise ProjectError(f"the subject key is {key.id}, but data/erased.json was made with {self.key_id}; restore that key")


class ErasedImages(Container[str]):
    """The digests (SHA-256) of erased images, each known by its keyed hash alone. False while there is none.

    Attributes: clear: those that are known in clear; personal data, in memory only.
    """

    def __init__(self, pseudonyms: Iterable[str] = (), key: SubjectKey | None = None, clear: Iterable[str] = ()) -> None:
        self._pseudonyms, self._key = images_among(pseudonyms), key
        self.clear = frozenset(self.among(clear))

    def __bool__(self) -> bool:
        return bool(self._pseudonyms)

    def __contains__(self, digest: object) -> bool:
        if not self._pseudonyms or self._key is None or not isinstance(digest, str):
            return False
        return self._key.image_pseudonym(digest) in self._pseudonyms

    def among(self, digests: Iterable[str]) -> list[str]:
        """Those of the digests that are of erased images; costs nothing while there is none."""
        return [digest for digest in digests if digest in self] if self else []

    def knowing(self, digests: Iterable[str]) -> "ErasedImages":
        """With those of the digests in clear that are of erased images."""
        return ErasedImages(self._pseudonyms, self._key, digests)


class SuppressionList:
    """Tells erased subjects and images from retained ones; needs the key only while some are erased.

    Attributes: key: None while nobody is on a list; pseudonyms: of everybody and everything that is.
    """

    @classmethod
    def of(cls, layout: Layout, also: Iterable[str] = ()) -> "SuppressionList":
        """By the branch's list and this machine's memory. Args: also: pseudonyms, whatever the lists say."""
        known, path = ErasedList.known(layout), key_path(layout.private_state)
        more = frozenset(also)
        return cls(known.add(more, load_key(path)) if more else known, path)

    def __init__(self, listed: ErasedList, key_file: Path) -> None:
        self.pseudonyms = listed.pseudonyms
        self.key = load_key(key_file) if listed.pseudonyms else None
        if self.key:
            listed.check_key(self.key)
        self.images = ErasedImages(listed.pseudonyms, self.key)

    def is_erased(self, subject: str) -> bool:
        return self.key is not None and self.key.pseudonym(subject) in self.pseudonyms
