"""The index of what was looked at: an object of a store that is named by its content, and was read whole, stays looked at.

    .lmeraser/objects.index     SQLite, mode 0600; never in git, a remote or a log
    contents    MD5 -> the traces of its bytes (`traces`) and of the people in it, as keyed digests; whether it is Parquet
    copies      key, store -> size and stamp of the file that was read there; the key is that of the MD5. A file that is named by
                no digest is known by its bytes alone, wherever it lies: its key is the one that a store would give it

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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lmeraser.erase.erased import SubjectKey
from lmeraser.prove.finder import Finder
from lmeraser.prove.traces import ANCHOR, DIGITS, HEAD, MEMORY, WORD, Found, distinct, needed
from lmeraser.stores.base import Entry, Store, place_of
from lmeraser.stores.dvc_objects import OBJECT

KINDS = (WORD, DIGITS, ANCHOR, HEAD, "person")
CODE = ("archives", "finder", "object_index", "parquet", "scan", "traces")  # what decides what a search finds, and what it leaves
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS contents (md5 TEXT PRIMARY KEY, parquet INTEGER NOT NULL, traces BLOB NOT NULL,"
    " seal BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS copies (key TEXT, store TEXT, size INTEGER NOT NULL, stamp TEXT NOT NULL, seal BLOB NOT NULL,"
    " PRIMARY KEY (key, store)) WITHOUT ROWID",
)
ANYWHERE = "anywhere"  # the store of what is known by its bytes
DAMAGED = "the index of the stores is damaged: it is not used, every object is read, and it is made anew"
FOREIGN = "the index of the stores: {} of {} entries are damaged, of other stores, another key or another release, and go"
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
        """Args: fields: texts and numbers, at last perhaps bytes."""
        *texts, last = fields
        message = "".join(f"{len(text)}:{text} " for text in map(str, texts)).encode("utf-8", "surrogateescape")
        message += last if isinstance(last, bytes) else str(last).encode("utf-8", "surrogateescape")
        return hashlib.blake2b(message, key=self._seal, digest_size=16).digest()

    def digests(self, found: Found) -> Any:
        """The keyed digests of traces, sorted, each once: uint64."""
        blocks = np.zeros((sum(map(len, found.values())), 2), np.uint64)
        begin = 0
        for kind, values in found.items():
            blocks[begin : begin + len(values), 0], blocks[begin : begin + len(values), 1] = values, KINDS.index(kind)
            begin += len(values)
        sealed = self._cipher.encryptor().update(blocks.tobytes())
        return distinct(np.frombuffer(sealed, np.uint64)[::2])

    def people(self, pseudonyms: Iterable[str]) -> Found:
        """The traces of people in columns of Parquet files."""
        return {"person": np.array([int(pseudonym[:16], 16) for pseudonym in pseudonyms], np.uint64)}

    def pseudonyms(self, names: Iterable[str]) -> Iterator[str]:
        return map(self._pseudonym, names)


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


class Clean:
    """The contents that surely hold nothing of what was asked for; each is checked when it is looked up."""

    def __init__(self, index: "ObjectIndex", held: frozenset[str], everything: bool) -> None:
        self._index, self._held, self._everything = index, held, everything

    def __contains__(self, md5: object) -> bool:
        return not self._everything and md5 not in self._held and isinstance(md5, str) and self._index.has_whole(md5)


class ObjectIndex:
    """The index of one project, as it was when it was opened. Attributes: damaged: it could not be read."""

    def __init__(self, path: Path, subject_key: SubjectKey) -> None:
        self.path, self.key, self.damaged = path, IndexKey(subject_key), False
        self._contents: dict[str, tuple[int, int, bytes]] = {}  # whether it is Parquet, where its digests end, seal
        self._digests = np.zeros(0, np.uint64)
        self._copies: dict[tuple[str, str], tuple[int, str, bytes]] = {}  # by key and store: size, stamp, seal
        self._checked: dict[str, bool] = {}
        self._lost = 0
        self._places: dict[int, tuple[Store, str]] = {}  # by the store's identity in memory, which holds while it is kept here
        self._fresh: dict[str, tuple[int, bytes]] = {}
        self._read: dict[tuple[str, str], tuple[int, str]] = {}
        self._there: set[tuple[str, str]] = set()
        self._keeps_bytes = False
        if os.path.lexists(path):
            try:
                self._load()
            except (sqlite3.Error, OSError, TypeError, ValueError, OverflowError):
                self.damaged = True
                self._contents, self._copies = {}, {}

    def _load(self) -> None:
        with _opened(self.path) as connection:
            contents = connection.execute("SELECT md5, parquet, traces, seal FROM contents").fetchall()
            copies = connection.execute("SELECT key, store, size, stamp, seal FROM copies").fetchall()
        traces = [row[2] if isinstance(row[2], bytes) and len(row[2]) % 8 == 0 else b"" for row in contents]
        self._digests = np.frombuffer(b"".join(traces), np.uint64)
        end = 0
        for (md5, parquet, _, seal), own in zip(contents, traces, strict=True):
            end += len(own) // 8
            self._contents[md5] = parquet, end, seal
        self._copies = {(key, store): (size, stamp, seal) for key, store, size, stamp, seal in copies}

    # Answers

    def clean(self, question: Question) -> Clean:
        """MD5s of the contents that surely hold nothing of what was asked for."""
        if question.open:
            return Clean(self, frozenset(), True)
        wanted = np.array(sorted(question.any_of.union(*question.all_of)), np.uint64)
        low = np.zeros(1 << 16, bool)
        low[wanted & np.uint64(0xFFFF)] = True
        places = np.flatnonzero(low[self._digests & np.uint64(0xFFFF)])
        places = places[np.isin(self._digests[places], wanted)]
        names, ends = list(self._contents), np.array([end for _, end, _ in self._contents.values()], np.int64)
        hits: dict[str, set[int]] = {}
        for content, digest in zip(np.searchsorted(ends, places, side="right"), self._digests[places], strict=True):
            hits.setdefault(names[int(content)], set()).add(int(digest))
        held = {md5 for md5, met in hits.items() if met & question.any_of or any(needs <= met for needs in question.all_of)}
        return Clean(self, frozenset(held), False)

    def has_whole(self, md5: str) -> bool:
        """Whether a content is known, by a row that is as it was written."""
        if md5 not in self._checked:
            parquet, _, seal = self._contents.get(md5, (0, 0, b""))
            sealed = md5 in self._contents and self.key.seal("content", md5, parquet, self._traces(md5).tobytes()) == seal
            self._lost += md5 in self._contents and not sealed
            self._checked[md5] = sealed
        return self._checked[md5]

    def is_known(self, store: Store, entry: Entry, md5: str) -> bool:
        """Whether this very file was read whole, and its bytes were those that its name says."""
        known = self._copies.get((entry.key, self._place(store)))
        if known is None or not entry.stamp or entry.kind != "file" or known[:2] != (entry.size, entry.stamp):
            return False
        sealed = self.key.seal("copy", entry.key, self._place(store), *known[:2]) == known[2]
        self._lost += not sealed
        return sealed and self.has_whole(md5)

    def is_parquet(self, md5: str) -> bool:
        return bool(self._contents[md5][0])

    @property
    def size(self) -> int:
        """How many files of stores are known."""
        return sum(store != ANYWHERE for _, store in self._copies)

    @property
    def sizes(self) -> frozenset[int]:
        """Of the files that are known, in bytes."""
        return frozenset(size for size, _, _ in self._copies.values() if isinstance(size, int))

    def _place(self, store: Store) -> str:
        if id(store) not in self._places:
            self._places[id(store)] = store, self.key.seal("store", store.name, place_of(store)).hex()[:16]
        return self._places[id(store)][1]

    def _traces(self, md5: str) -> Any:
        """Of a content that is known: its digests lie behind those of the content before it."""
        return self._digests[self._begins[md5] : self._contents[md5][1]]

    @cached_property
    def _begins(self) -> dict[str, int]:
        ends = [end for _, end, _ in self._contents.values()]
        return dict(zip(self._contents, [0, *ends], strict=False))

    # Changes

    def note(self, store: Store, entry: Entry, md5: str, parquet: bool, found: Found, people: Iterable[str]) -> None:
        """Remember that a file was read whole, and holds the content that its name says. Args: people: in its columns."""
        if entry.stamp:
            self._note_content(md5, parquet, found, people)
            self._read[entry.key, self._place(store)] = entry.size, entry.stamp

    def note_again(self, store: Store, entry: Entry, md5: str) -> None:
        """A file that is another one than was read holds these bytes still, which are known."""
        where, stamp = ((entry.key, self._place(store)), entry.stamp) if entry.stamp else ((_key_of(md5), ANYWHERE), ANYWHERE)
        self._read[where] = entry.size, stamp

    def note_bytes(self, size: int, md5: str, parquet: bool, found: Found, people: Iterable[str]) -> None:
        """Remember that a file that no store names was read whole."""
        self._note_content(md5, parquet, found, people)
        self._read[_key_of(md5), ANYWHERE] = size, ANYWHERE

    def _note_content(self, md5: str, parquet: bool, found: Found, people: Iterable[str]) -> None:
        digests = self.key.digests(found | self.key.people(self.key.pseudonyms(people)))
        # Two contents of one MD5 can be made: then either one's traces stand for both.
        before = self._fresh[md5][1] if md5 in self._fresh else self._traces(md5).tobytes() if self.has_whole(md5) else b""
        self._fresh[md5] = int(parquet), distinct(np.concatenate([digests, np.frombuffer(before, np.uint64)])).tobytes()

    def keep(self, store: Store, entry: Entry) -> None:
        """What is known of this file stays known. What is neither kept nor noted is forgotten."""
        self._there.add((entry.key, self._place(store)))

    def keep_bytes(self, md5: str) -> None:
        """A file that holds these bytes is still there."""
        self._there.add((_key_of(md5), ANYWHERE))

    def keep_all_bytes(self) -> None:
        """Some files that no store names were not looked at: what is known of any of them stays known."""
        self._keeps_bytes = True

    def problem(self) -> str:
        """What is to be told of the index, once all stores were looked at; empty if nothing."""
        if self.damaged:
            return DAMAGED
        ours = {ANYWHERE, *(place for _, place in self._places.values())}
        lost = self._lost + sum(store not in ours for _, store in self._copies)
        return FOREIGN.format(lost, len(self._copies) + len(self._contents)) if lost else ""

    def save(self) -> str:
        """Write what changed. A failure is no error: what was not kept is read again; returns the line that tells it."""
        try:
            self.path.parent.mkdir(exist_ok=True, mode=0o700)
            if self.damaged:
                _take_away(self.path)
            self._write()
        except (sqlite3.Error, OSError) as error:
            return UNKEPT.format(type(error).__name__)
        return ""

    def _write(self) -> None:
        gone = self._copies.keys() - self._there - self._read.keys()
        gone = {where for where in gone if not self._keeps_bytes or where[1] != ANYWHERE}
        with _opened(self.path, make=True) as connection:
            for command in SCHEMA:
                connection.execute(command)
            # IS: a damaged row may hold nothing where a text was.
            connection.executemany("DELETE FROM copies WHERE key IS ? AND store IS ?", list(gone))
            contents = ((md5, *row) for md5, row in self._fresh.items())
            rows = ((*row, self.key.seal("content", *row)) for row in contents)
            connection.executemany("INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?)", rows)
            copies = ((*where, *what) for where, what in self._read.items())
            connection.executemany(
                "INSERT OR REPLACE INTO copies VALUES (?, ?, ?, ?, ?)", ((*row, self.key.seal("copy", *row)) for row in copies)
            )
            held = {md5_of(key) for key, _ in (self._copies.keys() - gone) | self._read.keys()}
            connection.executemany("DELETE FROM contents WHERE md5 IS ?", [(md5,) for md5 in self._contents.keys() - held])


def md5_of(key: str) -> str:
    """The digest that an object is named by."""
    match = OBJECT.fullmatch(str(key))
    return match[1] + match[2] if match else ""


def _key_of(md5: str) -> str:
    """What a store would name it by."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


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
    gone = sorted(md5s)
    try:
        with _opened(path) as connection:
            keys = [(f"{folder}{md5[:2]}/{md5[2:]}",) for md5 in gone for folder in ("files/md5/", "")]
            connection.executemany("DELETE FROM copies WHERE key = ?", keys)
            connection.executemany("DELETE FROM contents WHERE md5 = ?", [(md5,) for md5 in gone])
    except (sqlite3.Error, OSError):
        with suppress(OSError):
            _take_away(path)


def _take_away(path: Path) -> None:
    for name in (f"{path.name}-journal", path.name):
        path.with_name(name).unlink(missing_ok=True)
