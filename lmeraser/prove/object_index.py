"""The index of what was looked at: an object of a store that is named by its content, and was read whole, stays looked at.

    .lmeraser/objects.index     SQLite, mode 0600; never in git, a remote or a log
    contents    MD5 -> the traces of its bytes (`traces`) and of the people in it, as keyed digests; whether it is Parquet
    copies      store, key -> size and stamp of the file that was read there

It names nobody: a digest is one block of AES-256 (FIPS 197) under a key that is derived from the project's subject key, of which
64 bits are kept: a keyed pseudo-random function like an HMAC, of which a large store needs millions. Every row is sealed with the
key and the version of this code: a row that was damaged, moved, made with another key or by another release fits no seal and is
as if it were not there. So whatever happens to the file, a row that counts is true; a missing one means that an object is read.
"""

import hashlib
import hmac
import os
import sqlite3
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lmeraser.erase.erased import SubjectKey
from lmeraser.prove.finder import Finder
from lmeraser.prove.traces import ANCHOR, DIGITS, HEAD, MEMORY, WORD, Found, needed
from lmeraser.stores.base import Entry, Store, place_of

KINDS = (WORD, DIGITS, ANCHOR, HEAD, "person")
CODE = ("archives", "finder", "object_index", "parquet", "scan", "traces")  # what decides what a search finds, and what it leaves
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS contents (md5 TEXT PRIMARY KEY, parquet INTEGER NOT NULL, traces BLOB NOT NULL,"
    " seal BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS copies (store TEXT, key TEXT, md5 TEXT NOT NULL, size INTEGER NOT NULL, stamp TEXT NOT NULL,"
    " seal BLOB NOT NULL, PRIMARY KEY (store, key)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS copies_by_content ON copies (md5)",
)
DAMAGED = "the index of the stores is damaged: it is not used, every object is read, and it is made anew"
FOREIGN = "the index of the stores: {} of {} rows are damaged, of another key or of another release; those objects are read"
UNKEPT = "the index of the stores could not be kept ({}): those objects are read again next time"


@cache
def code_version() -> str:
    """Which code searched: its bytes, and the libraries that read for it."""
    import pyarrow as pa

    digest = hashlib.sha256(f"{pa.__version__} {unicodedata.unidata_version} {np.__version__}".encode())
    for name in CODE:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()


class IndexKey:
    """The keyed digests of an index. Args: subject_key: of the project."""

    def __init__(self, subject_key: SubjectKey) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        secret = hmac.digest(subject_key.secret, b"index of objects", "sha256")
        self._pseudonym = subject_key.pseudonym
        self._seal = hmac.digest(secret, b"seal " + code_version().encode(), "sha256")
        # ECB of blocks that are all different is the block cipher itself, which is what is wanted here.
        self._cipher = Cipher(algorithms.AES(hmac.digest(secret, b"traces", "sha256")), modes.ECB())  # noqa: S305

    def seal(self, *fields: object) -> bytes:
        message = b"".join(len(raw).to_bytes(8, "big") + raw for field in fields for raw in (_bytes(field),))
        return hashlib.blake2b(message, key=self._seal, digest_size=16).digest()

    def digests(self, found: Found) -> Any:
        """The keyed digests of traces, sorted, each once: uint64."""
        blocks = [np.zeros((0, 2), np.uint64)]
        for kind, values in found.items():
            blocks.append(np.stack([np.asarray(values, np.uint64), np.full(len(values), KINDS.index(kind), np.uint64)], axis=1))
        sealed = self._cipher.encryptor().update(np.concatenate(blocks).tobytes())
        return np.unique(np.frombuffer(sealed, np.uint64)[::2])

    def people(self, pseudonyms: Iterable[str]) -> Found:
        """The traces of people in columns of Parquet files."""
        return {"person": np.array([int(pseudonym[:16], 16) for pseudonym in pseudonyms], np.uint64)}

    def pseudonyms(self, names: Iterable[str]) -> Iterator[str]:
        return map(self._pseudonym, names)


def _bytes(field: object) -> bytes:
    return field if isinstance(field, bytes) else os.fsencode(str(field))


@dataclass(frozen=True)
class Question:
    """What an object must not hold, as digests. Attributes: any_of: people; all_of: of each pattern, what it leaves.

    open: how many patterns leave nothing that an index could tell: then it answers nothing.
    """

    any_of: frozenset[int]
    all_of: tuple[frozenset[int], ...]
    open: int


def question_of(key: IndexKey, finder: Finder, pseudonyms: Iterable[str], names: Iterable[str] = ()) -> Question:
    """Does an object hold what this finder finds, or these people in a column? Args: names: people in clear."""
    asked = [needed(pattern) for pattern in finder.patterns]
    unanswerable = sum(not one for one in asked) + (finder.behind + finder.before > MEMORY)
    people = key.digests(key.people([*pseudonyms, *key.pseudonyms(names)]))
    return Question(
        frozenset(people.tolist()), tuple({frozenset(key.digests(one.found).tolist()) for one in asked if one}), unanswerable
    )


class ObjectIndex:
    """The index of one project, as it was when it was opened. Attributes: problem: what is told of it; "" if nothing."""

    def __init__(self, path: Path, subject_key: SubjectKey) -> None:
        self.path, self.key, self.problem = path, IndexKey(subject_key), ""
        self._broken = False
        self._parquet: dict[str, bool] = {}
        self._spans: dict[str, tuple[int, int]] = {}  # where the digests of each content lie
        self._digests = np.zeros(0, np.uint64)
        self._copies: dict[tuple[str, str], tuple[str, int, str]] = {}
        self._fresh: dict[str, tuple[bool, bytes]] = {}
        self._read: dict[tuple[str, str], tuple[str, int, str]] = {}
        self._stale: set[tuple[str, str]] = set()
        if os.path.lexists(path):
            self._load()

    def _load(self) -> None:
        try:
            with _opened(self.path) as connection:
                contents = connection.execute("SELECT md5, parquet, traces, seal FROM contents").fetchall()
                copies = connection.execute("SELECT store, key, md5, size, stamp, seal FROM copies").fetchall()
            whole = [row[:3] for row in contents if hmac.compare_digest(self.key.seal("content", *row[:3]), _bytes(row[3]))]
            whole = [row for row in whole if len(row[2]) % 8 == 0]
            known = [row[:5] for row in copies if hmac.compare_digest(self.key.seal("copy", *row[:5]), _bytes(row[5]))]
        except (sqlite3.Error, OSError, TypeError, ValueError, OverflowError):
            self.problem, self._broken = DAMAGED, True
            return
        lost, rows = len(contents) + len(copies) - len(whole) - len(known), len(contents) + len(copies)
        self.problem = FOREIGN.format(lost, rows) if lost else ""
        self._digests = np.frombuffer(b"".join(row[2] for row in whole), np.uint64)
        begin = 0
        for md5, parquet, traces in whole:
            self._parquet[md5], self._spans[md5] = bool(parquet), (begin, begin + len(traces) // 8)
            begin += len(traces) // 8
        self._copies = {(store, key): (md5, size, stamp) for store, key, md5, size, stamp in known}

    # Answers

    def clean(self, question: Question) -> frozenset[str]:
        """MD5s of the contents that surely hold nothing of what was asked for."""
        if question.open:
            return frozenset()
        wanted = np.array(sorted(question.any_of.union(*question.all_of)), np.uint64)
        low = np.zeros(1 << 16, bool)
        low[wanted & np.uint64(0xFFFF)] = True
        places = np.flatnonzero(low[self._digests & np.uint64(0xFFFF)])
        places = places[np.isin(self._digests[places], wanted)]
        names = list(self._spans)
        ends = np.array([end for _, end in self._spans.values()], np.int64)
        hits: dict[str, set[int]] = {}
        for content, digest in zip(np.searchsorted(ends, places, side="right"), self._digests[places], strict=True):
            hits.setdefault(names[int(content)], set()).add(int(digest))
        held = {md5 for md5, met in hits.items() if met & question.any_of or any(needs <= met for needs in question.all_of)}
        return frozenset(names) - held

    def is_known(self, store: Store, entry: Entry, md5: str) -> bool:
        """Whether this very file was read whole, and its bytes were those that its name says."""
        known = self._copies.get((self._place(store), entry.key))
        return bool(entry.stamp) and entry.kind == "file" and known == (md5, entry.size, entry.stamp) and md5 in self._spans

    def is_parquet(self, md5: str) -> bool:
        return self._parquet[md5]

    @property
    def size(self) -> int:
        """How many files are known."""
        return len(self._copies)

    def _place(self, store: Store) -> str:
        return self.key.seal("store", store.name, place_of(store)).hex()

    # Changes

    def note(self, store: Store, entry: Entry, md5: str, parquet: bool, found: Found, people: Iterable[str]) -> None:
        """Remember that a file was read whole, and holds the content that its name says. Args: people: in its columns."""
        if entry.stamp:
            digests = self.key.digests(found | self.key.people(self.key.pseudonyms(people)))
            # Two contents of one MD5 can be made: then either one's traces stand for both.
            self._fresh[md5] = parquet, np.union1d(digests, self._traces(md5)).tobytes()
            self._read[self._place(store), entry.key] = md5, entry.size, entry.stamp

    def _traces(self, md5: str) -> Any:
        if md5 in self._fresh:
            return np.frombuffer(self._fresh[md5][1], np.uint64)
        begin, end = self._spans.get(md5, (0, 0))
        return self._digests[begin:end]

    def drop(self, store: Store, key: str) -> None:
        """Forget a file: it was read, and cannot stay known."""
        self._stale.add((self._place(store), key))

    def keep_only(self, store: Store, keys: Collection[str]) -> None:
        """Forget the files of a store that are gone."""
        place, there = self._place(store), frozenset(keys)
        self._stale |= {(where, key) for where, key in self._copies if where == place and key not in there}

    def save(self) -> None:
        """Write what changed. A failure is told, and is no error: what was not kept is read again."""
        try:
            self.path.parent.mkdir(exist_ok=True, mode=0o700)
            if self._broken:
                self.path.unlink()
            self._write()
        except (sqlite3.Error, OSError) as error:
            self.problem = self.problem or UNKEPT.format(type(error).__name__)

    def _write(self) -> None:
        with _opened(self.path, make=True) as connection:
            for command in SCHEMA:
                connection.execute(command)
            stale = self._stale - self._read.keys()
            connection.executemany("DELETE FROM copies WHERE store = ? AND key = ?", sorted(stale))
            contents = ((md5, int(parquet), traces) for md5, (parquet, traces) in self._fresh.items())
            rows = ((*row, self.key.seal("content", *row)) for row in contents)
            connection.executemany("INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?)", rows)
            copies = ((*where, *what) for where, what in self._read.items())
            connection.executemany(
                "INSERT OR REPLACE INTO copies VALUES (?, ?, ?, ?, ?, ?)", ((*row, self.key.seal("copy", *row)) for row in copies)
            )
            if self.problem:  # rows that fit no seal serve nobody
                self._drop_unsealed(connection)
            connection.execute("DELETE FROM contents WHERE md5 NOT IN (SELECT md5 FROM copies)")

    def _drop_unsealed(self, connection: sqlite3.Connection) -> None:
        copies, contents = self._copies.keys() | self._read.keys(), self._spans.keys() | self._fresh.keys()
        for store, key in connection.execute("SELECT store, key FROM copies").fetchall():
            if (store, key) not in copies:
                connection.execute("DELETE FROM copies WHERE store IS ? AND key IS ?", (store, key))
        for (md5,) in connection.execute("SELECT md5 FROM contents").fetchall():
            if md5 not in contents:
                connection.execute("DELETE FROM contents WHERE md5 IS ?", (md5,))


@contextmanager
def _opened(path: Path, make: bool = False) -> Iterator[sqlite3.Connection]:
    """A transaction. What is deleted is overwritten; a power cut may damage the file, which is then made anew."""
    if make:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    connection = sqlite3.connect(path, timeout=30)
    try:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA synchronous = OFF")
        with connection:
            yield connection
    finally:
        connection.close()


def forget_contents(path: Path, md5s: Iterable[str]) -> None:
    """Take objects out of the index before they are deleted. An index that cannot be changed goes as a whole."""
    if not os.path.lexists(path):
        return
    gone = [(md5,) for md5 in sorted(md5s)]
    try:
        with _opened(path) as connection:
            connection.executemany("DELETE FROM copies WHERE md5 = ?", gone)
            connection.executemany("DELETE FROM contents WHERE md5 = ?", gone)
    except (sqlite3.Error, OSError):
        for name in (path.name, f"{path.name}-journal"):
            with suppress(OSError):
                path.with_name(name).unlink()
