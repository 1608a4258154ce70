"""The scan: is anything of the erased subjects left in a store? A gate of its own, run in a new process after the purge.

It does not trust the purge's bookkeeping. It looks (a) for condemned digests, and for manifests and run entries that name them;
(b) into every Parquet file for an erased subject or record; (c) at every byte for needles: ids, image digests, images, names,
canaries. It tells counts by store and kind, never a needle nor what a file holds. What is compressed hides from (c).
"""

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lmeraser.core.errors import VerificationError
from lmeraser.stores.base import Store
from lmeraser.stores.dvc_objects import contents, read_manifests, read_runs

CHUNK = 8 << 20  # bytes read at once
ANCHOR = 8  # bytes of a needle that are looked up at every offset
SHORTEST_NAME = 8  # characters; a shorter name stands in many files that are not about the subject
WHOLE_IMAGE = 4096  # bytes; of a larger image EXCERPTS pieces of EXCERPT bytes are looked for
EXCERPT, EXCERPTS = 64, 3
SCATTER = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing (Knuth, TAOCP 3, 6.4)
WORD = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


@dataclass(frozen=True)
class Residue:
    store: str
    kind: str  # condemned object, run entry or content | names a condemned object | subject | record | bytes
    count: int


@dataclass(frozen=True)
class Needles:
    """What must be found nowhere. Personal data: sent through a pipe, never in an argument, stored until a scan found none.

    Attributes: objects, run_entries: condemned digests; ids: of records; texts: looked for anywhere; names: subjects, looked for
    as whole words; images: bytes that were an image, or a part of one.
    """

    objects: frozenset[str] = frozenset()
    run_entries: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    images: frozenset[bytes] = frozenset()

    def with_words_of(self, other: "Needles") -> "Needles":
        """Also what the other looks for by its bytes; what is condemned is decided anew each time."""
        words = ("ids", "texts", "names", "images")
        return replace(self, **{name: getattr(self, name) | getattr(other, name) for name in words})

    def to_json(self) -> dict[str, list[str]]:
        told = {name: sorted(value) for name, value in asdict(self).items() if name != "images"}
        return told | {"images": sorted(base64.b64encode(one).decode() for one in self.images)}

    @classmethod
    def from_json(cls, raw: dict[str, list[str]]) -> "Needles":
        images = frozenset(base64.b64decode(one) for one in raw["images"])
        return cls(**{name: frozenset(raw[name]) for name in raw if name != "images"}, images=images)

    @cached_property
    def patterns(self) -> dict[bytes, bool]:
        """Byte strings, and whether each must stand as a whole word."""
        found = dict.fromkeys((name for one in self.names for name in spellings(one)), True)
        found |= dict.fromkeys((text for one in self.texts | self.ids for text in spellings(one)), False)
        return found | dict.fromkeys(self.images, False)


def spellings(text: str) -> set[bytes]:
    """A text as files write it: plain, and as JSON with escapes."""
    return {text.encode(), json.dumps(text)[1:-1].encode()}


def excerpts(image: bytes) -> set[bytes]:
    """A small image whole; of a large one pieces from its second half: headers and colour tables are alike in many images."""
    if len(image) <= WHOLE_IMAGE:
        return {image}
    step = len(image) // (2 * (EXCERPTS + 1))
    starts = (len(image) // 2 + step * number for number in range(EXCERPTS))
    return {image[start : start + EXCERPT] for start in starts}


class Finder:
    """Counts needles in streams: a table of 8-byte anchors is looked up at every offset, all needles in one pass."""

    def __init__(self, patterns: dict[bytes, bool]) -> None:
        self.short = {needle: whole for needle, whole in patterns.items() if 0 < len(needle) < ANCHOR}
        self.longest = max(map(len, patterns), default=0) + 1  # with the byte behind it
        self.anchored: dict[int, list[tuple[bytes, int, bool]]] = defaultdict(list)
        for needle, whole in patterns.items():
            if len(needle) >= ANCHOR:
                starts = range(len(needle) - ANCHOR + 1)
                # The most varied 8 bytes, from the end: all PNG files begin alike.
                start = max(starts, key=lambda at: (len(set(needle[at : at + ANCHOR])), at))
                self.anchored[int.from_bytes(needle[start : start + ANCHOR], "little")].append((needle, start, whole))
        self.anchors = np.array(sorted(self.anchored), np.uint64)
        self.table = np.zeros(1 << 16, bool)
        self.table[self._slots(self.anchors)] = True

    @staticmethod
    def _slots(words: Any) -> Any:
        return (words * SCATTER) >> np.uint64(48)

    def _candidates(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Places whose 8 bytes are an anchor, and the anchor."""
        for offset in range(min(ANCHOR, max(0, len(data) - ANCHOR + 1))):
            words = np.frombuffer(data, "<u8", count=(len(data) - offset) // ANCHOR, offset=offset)
            likely = np.flatnonzero(self.table[self._slots(words)])
            for at in likely[np.isin(words[likely], self.anchors)]:
                yield offset + ANCHOR * int(at), int(words[at])

    def found(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Where which needle stands."""
        if len(self.anchors):
            for at, anchor in self._candidates(data):
                for needle, start, whole in self.anchored[anchor]:
                    begin = at - start
                    if begin >= 0 and data.startswith(needle, begin) and not (whole and _inside_word(data, begin, len(needle))):
                        yield begin, needle
        for needle, whole in self.short.items():
            begin = data.find(needle)
            while begin >= 0:
                if not (whole and _inside_word(data, begin, len(needle))):
                    yield begin, needle
                begin = data.find(needle, begin + 1)

    def count(self, stream: BinaryIO, digest: Any) -> int:
        """How many needles stand in a stream, also across the borders of what is read at once; updates the digest with it."""
        total, data, begin, last = 0, b"", 0, False
        while not last:
            chunk = stream.read(CHUNK)
            last = not chunk
            digest.update(chunk)
            data += chunk
            # A needle is counted once: with the data in which its begin lies before `limit` and its whole length is there.
            limit = len(data) if last else max(begin, len(data) - self.longest)
            total += sum(begin <= at < limit for at, _ in self.found(data))
            kept = max(0, limit - 1)  # and the byte before, to tell whether a word begins there
            data, begin = data[kept:], limit - kept
        return total


def _inside_word(data: bytes, begin: int, length: int) -> bool:
    before = begin > 0 and data[begin - 1] in WORD
    return before or (begin + length < len(data) and data[begin + length] in WORD)


def parquet_hits(stream: BinaryIO, is_erased: Callable[[str], bool], ids: frozenset[str]) -> dict[str, int]:
    """Rows of a Parquet file that name an erased subject or record; nothing if it is no whole Parquet file."""
    stream.seek(0)
    if stream.read(4) != b"PAR1":
        return {}
    stream.seek(0)
    hits: dict[str, int] = {}
    try:
        names = [name for name in ("subject", "unit", "id") if name in pq.read_schema(stream).names]
        stream.seek(0)
        table = pq.read_table(stream, columns=names)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return {}  # its bytes are searched all the same
    for name in names:
        values = table[name].to_pylist()
        if name == "id":
            hits["record"] = sum(value in ids for value in values)
        else:
            erased = {value for value in set(values) if value is not None and is_erased(str(value))}
            hits["subject"] = max(hits.get("subject", 0), sum(value in erased for value in values))
    return {kind: count for kind, count in hits.items() if count}


@dataclass(frozen=True)
class Looked:
    """What was looked at in one store, and what was found.

    Attributes: objects: files; bytes: of them; where: keys of files that hold something. A key may be personal: it is not told.
    """

    store: str
    objects: int
    bytes: int
    residue: list[Residue]
    where: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "where"}


def scan_store(store: Store, needles: Needles, is_erased: Callable[[str], bool], finder: Finder) -> Looked:
    """Look at everything in a store. Raises: StepFailedError if it cannot be read."""
    held = contents(store)
    counts: dict[str, int] = defaultdict(int)
    counts["condemned object"] = sum(len(keys) for md5, keys in held.objects.items() if md5 in needles.objects)
    counts["condemned run entry"] = len(held.runs.keys() & needles.run_entries)
    for members in read_manifests(store, held).values():
        counts["names a condemned object"] += not needles.objects.isdisjoint(members.values())
    for deps, outs in read_runs(store, held)[0].values():
        counts["names a condemned object"] += not needles.objects.isdisjoint(md5 for _, md5 in (*deps, *outs))
    digests = {md5.removesuffix(".dir") for md5 in needles.objects}
    named = {key for keys in held.objects.values() for key in keys}
    files = size = 0
    where = []
    for key in held.sizes:
        before = sum(counts.values())
        digest = hashlib.md5(usedforsecurity=False)
        try:
            with store.open(key) as stream:
                for kind, count in parquet_hits(stream, is_erased, needles.ids).items():
                    counts[kind] += count
                stream.seek(0)
                counts["bytes"] += finder.count(stream, digest)
                size += stream.tell()
        except FileNotFoundError:
            continue  # gone since it was listed
        files += 1
        counts["condemned content"] += key not in named and digest.hexdigest() in digests
        if sum(counts.values()) > before:
            where.append(key)
    residue = [Residue(store.name, kind, count) for kind, count in sorted(counts.items()) if count]
    return Looked(store.name, files, size, residue, tuple(where))


def scan(stores: Iterable[Store], needles: Needles, is_erased: Callable[[str], bool]) -> list[Looked]:
    """Look at every store. Raises: VerificationError if there was nothing to look for or nothing to look at."""
    if not (needles.objects or needles.patterns):
        raise VerificationError("the scan had nothing to look for; checking nothing proves nothing")
    finder = Finder(needles.patterns)
    looked = [scan_store(store, needles, is_erased, finder) for store in stores]
    if not sum(one.objects for one in looked):
        raise VerificationError("the scan found no file to look at; checking nothing proves nothing")
    return looked
