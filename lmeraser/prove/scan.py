"""The scan: is anything of the erased subjects left in a store? A gate of its own, run in a new process after the purge.

It does not trust the purge's bookkeeping. It looks (a) for condemned digests, and for manifests and run entries that name them;
(b) into every Parquet file for an erased subject or record; (c) at every byte, and at every name of a file or folder, for
search terms: ids, image digests, images, names, canaries. It tells counts by store and kind, never a term nor what a file holds.
What cannot be read is a finding, not passed over; and what is exempt is in the report. What need not be read again: `reading`.
"""

import hashlib
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from lmeraser.core.errors import LmeraserError, VerificationError
from lmeraser.erase.taint import NOTHING_CONDEMNED, Condemned
from lmeraser.prove.archives import ClosedError, is_packed, unpacked
from lmeraser.prove.finder import Finder, Readable
from lmeraser.prove.parquet import UNREADABLE, Either, is_parquet, parquet_hits, shows_its_values
from lmeraser.prove.reading import Look, Reading, is_answerable, remember
from lmeraser.prove.search_terms import SearchTerms
from lmeraser.prove.traces import Gathering
from lmeraser.stores.base import Entry, Store, UnreadableError, entries_of
from lmeraser.stores.dvc_objects import Contents, contents, read_manifests, read_runs
from lmeraser.stores.folder import FolderStore

HOLE = 64 << 20  # bytes; a longer hole of a sparse file is passed over: it holds zeros
PACKED = "compressed files that could not be unpacked whole (or lie in another one): their names and packed bytes were searched"
SPECIAL = "sockets, pipes and devices: their names were searched, they keep no content"
SPARSE = "files with long holes: the holes were passed over"


@dataclass(frozen=True)
class Residue:
    """So many things of one kind that must not be there."""

    store: str
    kind: str  # condemned object, run entry or content | names a condemned object | subject | record | bytes | name | unreadable
    count: int


@dataclass(frozen=True)
class StoreReport:
    """What was looked at in one store, and what was found there.

    Attributes: objects: files that were read; bytes: of them; known: that were not, because the index knows that they hold
    nothing; waiting: whose turn it was not; where: keys of files that hold something; unreadable: that cannot be read.
    A key may be personal: it is not told; one in which a search term was found is in neither.
    holding: of those that hold something, the objects and run entries, by what DVC names them; for who deletes them.
    links: what links point at, resolved; not told either. exempt: how many files of which kind were not looked into.
    """

    store: str
    objects: int
    bytes: int
    residue: tuple[Residue, ...]
    where: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    exempt: dict[str, int] = field(default_factory=dict)
    known: int = 0
    waiting: int = 0
    holding: Condemned = NOTHING_CONDEMNED


class Solid:
    """A file as long as it was when it was opened (a log may grow for ever), without its long holes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.holes = False
        self._end: int | None = None
        self._sparse = False
        try:
            facts = os.fstat(stream.fileno())
        except (OSError, AttributeError):  # in memory, or far away
            return
        if stat.S_ISREG(facts.st_mode):
            self._end = facts.st_size
            self._sparse = facts.st_size - facts.st_blocks * 512 > HOLE

    def read(self, size: int) -> bytes:
        if self._end is None:
            return self._stream.read(size)
        at = self._stream.tell()
        if self._sparse:
            data = self._next_data(at)
            if data - at > HOLE:
                self.holes = True
                self._stream.seek(data)
                return bytes(1)  # so that nothing before it touches what comes behind
        return self._stream.read(max(0, min(size, self._end - at)))

    def _next_data(self, at: int) -> int:
        """Where the next byte lies that is not in a hole. The file's own position stays: the stream's buffer relies on it."""
        handle = self._stream.fileno()
        here = os.lseek(handle, 0, os.SEEK_CUR)
        try:
            return os.lseek(handle, at, os.SEEK_DATA)
        except OSError:
            return self._end or 0  # a hole to the end
        finally:
            os.lseek(handle, here, os.SEEK_SET)


@dataclass
class _StoreScan:
    """A scan of one store, under way. Attributes: named: keys in whose last part a search term stands."""

    store: Store
    search_terms: SearchTerms
    is_erased: Callable[[str], bool]
    finder: Finder
    reading: Reading
    erased_images: Container[str] = frozenset()
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    exempt: Counter[str] = field(default_factory=Counter)
    where: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    holding: set[str] = field(default_factory=set)  # keys
    files: int = 0
    size: int = 0

    def without_names(self, keys: list[str]) -> tuple[str, ...]:
        """The keys in which no search term stands, nor in a folder above."""
        whole = (key for key in keys if key not in self.named)
        return tuple(key for key in whole if self.named.isdisjoint(str(parent) for parent in PurePosixPath(key).parents))

    def lineage(self, stored: Contents) -> None:
        """Condemned digests, and what names them."""
        objects, counts = self.search_terms.objects, self.counts
        counts["condemned object"] = sum(len(keys) for md5, keys in stored.objects.items() if md5 in objects)
        counts["condemned run entry"] = len(stored.runs.keys() & self.search_terms.run_entries)
        with suppress(UnreadableError):  # which is found as such where every file is opened
            for members in read_manifests(self.store, stored).values():
                counts["names a condemned object"] += not objects.isdisjoint(members.values())
            for deps, outs in read_runs(self.store, stored)[0].values():
                counts["names a condemned object"] += not objects.isdisjoint(md5 for _, md5 in (*deps, *outs))

    def names(self, entries: list[Entry]) -> None:
        """Names of files and folders; and what is not open to us."""
        keys = [entry.key for entry in entries]
        self.named = {keys[number] for number in self.finder.paths_with_matches(map(os.fsencode, keys))}
        self.counts["name of a file or folder"] += len(self.named)
        self.unreadable += [entry.key for entry in entries if entry.kind == "closed"]
        self.counts[UNREADABLE] += len(self.unreadable)
        self.exempt[SPECIAL] += sum(entry.kind == "special" for entry in entries)

    def content(self, key: str, gathering: Gathering | None) -> Look:
        """Everything in one file. Args: gathering: is given what is read. Raises: whatever reading raises."""
        digest, look = hashlib.md5(usedforsecurity=False), Look()
        records = Either(self.search_terms.ids | self.search_terms.texts, self.erased_images)

        def is_erased(person: str) -> bool:
            look.people.add(person)
            return self.is_erased(person)

        with self.store.open(key) as stream:
            hits = parquet_hits(stream, is_erased, records, self.finder.count_values)
            for kind, count in hits.items():
                self.counts[kind] += count
            shown = gathering is not None and UNREADABLE not in hits and shows_its_values(stream)
            look.parquet = is_parquet(stream)
            stream.seek(0)
            head = stream.read(8)
            stream.seek(0)
            solid = Solid(stream)
            self.counts["bytes"] += self.finder.count(solid, Both(digest, gathering) if gathering else digest)
            self.size += stream.tell()
            if is_packed(head):
                self.packed(head, stream)
        self.exempt[SPARSE] += solid.holes
        look.md5, look.answerable = "" if solid.holes else digest.hexdigest(), is_answerable(head, shown, solid.holes)
        return look

    def packed(self, head: bytes, stream: BinaryIO) -> None:
        try:
            for name, inner in unpacked(head, stream):
                self.counts["name of a file or folder"] += len(self.finder.paths_with_matches([os.fsencode(name)]))
                inside = _Peek(inner)
                self.counts["bytes"] += self.finder.count(inside)
                self.exempt[PACKED] += is_packed(inside.head)
        except ClosedError:
            self.exempt[PACKED] += 1
        except Exception:  # damaged in the middle: what came before was searched
            self.exempt[PACKED] += 1

    def is_known(self, entry: Entry, name: str, condemned: set[str]) -> bool:
        """Whether a file need not be searched. Args: name: the digest that it is named by, empty if it is not."""
        try:
            if name:
                return name not in self.search_terms.objects and self.reading.knows(self.store, entry, name)
            return self.reading.knows_bytes(self.store, entry, condemned)
        except (OSError, UnreadableError):
            return False  # it is opened again, and told there

    def file(self, entry: Entry, name: str, digests: set[str]) -> None:
        """Args: name: the digest that it is named by, empty if it is not; digests: condemned ones."""
        key, gathering, look = entry.key, self.reading.gathering(entry, name), Look()
        before, unreadable = sum(self.counts.values()), self.counts[UNREADABLE]
        try:
            look = self.content(key, gathering)
        except FileNotFoundError:
            return  # gone since it was listed
        except UnreadableError:
            self.counts[UNREADABLE] += 1
        except LmeraserError:
            raise  # the store is away
        except Exception:  # whatever reading one odd file does: it is told, and never ends the scan
            self.counts[UNREADABLE] += 1
        else:
            self.files += 1
            self.counts["condemned content"] += not name and look.md5 in digests
        found = sum(self.counts.values()) > before
        remember(self.reading, self.store, entry, name, look, gathering, clean=not found)
        if found:
            self.where.append(key)
        if sum(self.counts.values()) - before > self.counts[UNREADABLE] - unreadable:
            self.holding.add(key)
        if self.counts[UNREADABLE] > unreadable:
            self.unreadable.append(key)


class Both:
    """Hands what is read to two that want it."""

    def __init__(self, first: Any, second: Any) -> None:
        self._first, self._second = first, second

    def update(self, data: bytes) -> None:
        self._first.update(data)
        self._second.update(data)


class _Peek:
    """Remembers how a stream begins."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.head = b""

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.head = self.head or data[:8]
        return data


@dataclass(frozen=True)
class _Listed:
    """A store and all that lies in it."""

    store: Store
    entries: list[Entry]
    stored: Contents

    @classmethod
    def of(cls, store: Store) -> "_Listed":
        """Raises: StepFailedError if it cannot be reached."""
        entries = entries_of(store)
        return cls(store, entries, contents(store, [entry for entry in entries if entry.kind in ("file", "link")]))


def _scan_store(
    listed: _Listed,
    search_terms: SearchTerms,
    is_erased: Callable[[str], bool],
    finder: Finder,
    reading: Reading,
    erased_images: Container[str],
) -> StoreReport:
    """Look at everything in a store that is to be read. Raises: StepFailedError if it cannot be reached."""
    store, entries, stored = listed.store, listed.entries, listed.stored
    store_scan = _StoreScan(store, search_terms, is_erased, finder, reading, erased_images)
    store_scan.lineage(stored)
    store_scan.names(entries)
    digests = {md5.removesuffix(".dir") for md5 in search_terms.objects}
    names = {key: md5 for md5, keys in stored.objects.items() for key in keys}
    known = waiting = 0
    for key, entry in stored.entries.items():
        name = names.get(key, "")
        if store_scan.is_known(entry, name, digests):
            known += 1
        elif reading.waits(store, entry, name):
            waiting += 1
        else:
            store_scan.file(entry, name, digests)
    links: tuple[str, ...] = ()
    if isinstance(store, FolderStore):
        linked = (os.path.realpath(store.root / entry.key) for entry in entries if entry.kind == "link")
        links = tuple(path for path in linked if os.path.exists(path))  # noqa: PTH110 (names that are no UTF-8, loops)
    return StoreReport(
        store.name,
        store_scan.files,
        store_scan.size,
        tuple(Residue(store.name, kind, count) for kind, count in sorted(store_scan.counts.items()) if count),
        store_scan.without_names(store_scan.where),
        store_scan.without_names(store_scan.unreadable),
        links,
        {text: count for text, count in store_scan.exempt.items() if count},
        known,
        waiting,
        Condemned(
            frozenset(names[key] for key in store_scan.holding & names.keys()),
            frozenset(identity for identity, key in stored.runs.items() if key in store_scan.holding),
        ),
    )


def scan(
    stores: Iterable[Store],
    search_terms: SearchTerms,
    is_erased: Callable[[str], bool],
    reading: Reading | None = None,
    erased_images: Container[str] = frozenset(),
) -> list[StoreReport]:
    """Look at every store. Args: erased_images: their digests, looked for in columns of Parquet files.

    Raises: VerificationError if there was nothing to look for or nothing to look at.
    """
    reading = reading or Reading()
    patterns = search_terms.patterns()
    if not (search_terms.objects or patterns):
        raise VerificationError("the scan had nothing to look for; checking nothing proves nothing")
    finder = Finder(patterns)
    reading.begin(finder)
    listed = [_Listed.of(store) for store in stores]
    reports: dict[int, StoreReport] = {}
    # Objects first: most of the workspace's bytes are copies of some.
    for number in sorted(range(len(listed)), key=lambda number: not listed[number].stored.objects):
        reports[number] = _scan_store(listed[number], search_terms, is_erased, finder, reading, erased_images)
    if not sum(report.objects + report.known + report.waiting for report in reports.values()):
        raise VerificationError("the scan found no file to look at; checking nothing proves nothing")
    reading.finish()
    return [reports[number] for number in range(len(listed))]
