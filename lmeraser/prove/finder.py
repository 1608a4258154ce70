"""Finds search terms in bytes, all of them in one pass, however a program may have written them.

Words (names, ids, digests, canaries) are found in any case, Unicode form and common encoding: UTF-8, UTF-16, UTF-32, Latin-1,
JSON and XML escapes, percent-encoding. Case is folded by lowering ASCII letters of the data, which keeps every offset, and by
looking for the usual forms of other letters (`encoded_forms`); text that is not ASCII is folded whole besides (`folded`). Images
are compared as they are, byte by byte.

A name counts as a whole word: a letter or a digit before or behind it makes another word (`writer-1` in `writer-10`), `_`, `-` or
a dot do not (`writer-1_0001.png`). Where a longer name of a retained person stands, a name within it does not count.
"""

import html
import json
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol
from urllib.parse import quote, quote_plus

import numpy as np

CHUNK = 8 << 20  # bytes read at once
SAMPLE = 4096  # bytes by which an encoding is guessed
ODD = 16  # one character of so many may be none that a text has
UNITS = {"utf-16-le": 2, "utf-16-be": 2, "utf-32-le": 4, "utf-32-be": 4}  # bytes
ANCHOR = 8  # bytes of a search term that are looked up at every offset
BLOCK = 1 << 20  # bytes that are looked at together: what is computed of them stays in the processor's cache
SMALL = 1 << 16  # bytes up to which all offsets are looked at together: fewer calls, though each word lies askew in memory
SCATTER = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing (Knuth, TAOCP 3, 6.4)
WORD = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")
INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
STYLES: tuple[Callable[[str], str], ...] = (str, str.casefold, str.upper, str.title)
FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")
ENCODINGS = (("utf-8", 1), ("utf-16-le", 2), ("utf-16-be", 2), ("utf-32-le", 4), ("utf-32-be", 4), ("cp1252", 1))
ESCAPES: dict[str, Callable[[str], str]] = {
    "json": lambda text: json.dumps(text)[1:-1],
    "xml": lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace").decode(),
    "url": lambda text: quote(text, safe=""),
    "path of a url": quote,
    "form": quote_plus,
}


class Readable(Protocol):
    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


@dataclass(frozen=True)
class Pattern:
    """Attributes: data: what is looked up in lowered bytes; term: that it stands for; exact: the bytes must be the term's.

    unit: bytes of a character if it must stand as a whole word, 0 if anywhere; order: of such a character's bytes.
    shields: (place of the pattern in it, longer name, lowered): there it does not count.
    """

    data: bytes
    term: str | bytes
    exact: bool = False
    unit: int = 0
    order: Literal["little", "big"] = "little"
    shields: tuple[tuple[int, bytes], ...] = ()


def folded(text: str) -> str:
    """A text without case, Unicode form and invisible characters (Unicode 3.13, compatibility caseless)."""
    return unicodedata.normalize("NFKC", INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold()))


def encoded_forms(text: str) -> set[tuple[str, bytes, int]]:
    """How files write a text, lowered: (encoding or escape, bytes, bytes of a character)."""
    shapes = (
        {text.lower()} if text.isascii() else {unicodedata.normalize(form, style(text)) for style in STYLES for form in FORMS}
    )
    forms = {("utf-8", folded(text).encode("utf-8", "surrogateescape").lower(), 1)}
    for shape in shapes:
        for encoding, unit in ENCODINGS:
            try:
                forms.add((encoding, shape.encode(encoding).lower(), unit))
            except UnicodeEncodeError:  # no such character there
                continue
        for name, escape in ESCAPES.items() if not (shape.isascii() and shape.isalnum()) else ():
            try:
                forms.add((name, escape(shape).encode().lower(), 1))
            except UnicodeEncodeError:
                continue
    return forms


def text_patterns(text: str, whole: bool, longer: Iterable[str] = ()) -> list[Pattern]:
    """The patterns of a text. Args: whole: only as a whole word; longer: names that contain it and belong to somebody else."""
    others = [(way, data) for name in longer for way, data, _ in encoded_forms(name)]
    shields_of: dict[tuple[bytes, int, str], set[tuple[int, bytes]]] = defaultdict(set)
    for way, data, unit in encoded_forms(text):
        shields = shields_of[data, unit if whole else 0, "big" if way.endswith("-be") else "little"]
        for other in (name for known, name in others if known == way and data):
            at = other.find(data)
            while at >= 0:
                shields.add((at, other))
                at = other.find(data, at + 1)
    return [
        Pattern(data, text, unit=unit, order=order, shields=tuple(sorted(shields)))  # type: ignore[arg-type]
        for (data, unit, order), shields in shields_of.items()
        if data
    ]


def image(data: bytes) -> Pattern:
    return Pattern(data.lower(), data, exact=True)


def _guess(data: bytes, begins: bool) -> str:
    """How a text would be written, by its zeros; empty if it is none: other files hold zeros here and there."""
    head = data[:SAMPLE]
    zeros = [head[place::4].count(0) for place in range(4)]  # of each byte of four
    many, few = len(head) // 8, len(head) // 64
    if min(zeros[1:]) > many > few >= zeros[0] or min(zeros[:3]) > many > few >= zeros[3]:
        return "utf-32-le" if zeros[0] <= few else "utf-32-be"
    if (begins and data.startswith(b"\xff\xfe")) or zeros[1] + zeros[3] > many > few >= zeros[0] + zeros[2]:
        return "utf-16-le"
    big = (begins and data.startswith(b"\xfe\xff")) or zeros[0] + zeros[2] > many > few >= zeros[1] + zeros[3]
    return "utf-16-be" if big else ""


def _encoding(data: bytes, begins: bool = True) -> str | None:
    """How a text is written; None if it is none. Args: begins: a file does here."""
    if b"\0" not in data:
        return "utf-8"
    code = _guess(data, begins)
    if not code:
        return None
    width = UNITS[code]
    head = np.frombuffer(data[: min(SAMPLE, len(data)) // width * width], np.uint8)
    return code if int(_odd(head, code)[::width].sum()) <= len(head) // width // ODD else None


@cache
def _strange() -> Any:
    """Of each character of Unicode's first plane: whether it is a control character, for private use, or none at all."""
    kinds = (unicodedata.category(chr(value)) for value in range(1 << 16))
    table = np.array([kind in ("Cc", "Cn", "Co") for kind in kinds])
    table[[9, 10, 13]] = False
    return table


def _odd(data: Any, code: str) -> Any:
    """Of each place where a character of this width may begin, whether a text has none such there: numbers in a row have many."""
    width = UNITS[code]
    shifts = range(0, 8 * width, 8) if code.endswith("le") else range(8 * width - 8, -8, -8)
    values = sum(
        data[place : len(data) - width + 1 + place].astype(np.uint32) << np.uint32(shift) for place, shift in enumerate(shifts)
    )
    return _strange()[np.minimum(values, 0xFFFF)] & (values <= 0xFFFF) | (values > 0x10FFFF)


def _counts_in_samples(flags: Any, stride: int, places: int) -> Any:
    """For each of the first places: how many of every `stride`th flag from there on are set, within a sample."""
    sums = np.pad(flags, (stride, -len(flags) % stride)).reshape(-1, stride).cumsum(axis=0).ravel()
    return sums[SAMPLE : SAMPLE + places] - sums[:places]


def may_be_folded(before: bytes, chunk: bytes, begins: bool) -> bool:
    """Whether some search would fold this chunk of a file (`Finder.count`): never false where one does.

    Args: before: the end of what was read before it: a search begins to read a chunk within it, at a place that its terms decide.
    """
    if begins:
        return not (chunk.isascii() and b"\0" not in chunk) and _encoding(chunk) is not None
    if len(chunk) < SAMPLE or (b"\0" not in chunk and not (before.isascii() and chunk.isascii())):
        return True
    sample = np.frombuffer(before + chunk[:SAMPLE], np.uint8)
    places = len(before) + 1
    counts = _counts_in_samples(sample == 0, 4, places + 3)
    first, second, third, fourth = (counts[place : places + place] for place in range(4))
    many, few = SAMPLE // 8, SAMPLE // 64
    guesses = {
        "utf-32-le": (np.minimum(np.minimum(second, third), fourth) > many) & (first <= few),
        "utf-32-be": (np.minimum(np.minimum(first, second), third) > many) & (fourth <= few),
        "utf-16-le": (second + fourth > many) & (first + third <= few),
        "utf-16-be": (first + third > many) & (second + fourth <= few),
    }
    return any(
        bool((guess & (_counts_in_samples(_odd(sample, code), UNITS[code], places) <= SAMPLE // UNITS[code] // ODD)).any())
        for code, guess in guesses.items()
        if guess.any()
    )


class Finder:
    """Counts search terms in streams: a table of 8-byte anchors is looked up at every offset, all search terms in one pass."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self.patterns = searched = [pattern for pattern in patterns if pattern.data]
        self.short = [pattern for pattern in searched if len(pattern.data) < ANCHOR]
        self.anchored: dict[int, list[tuple[Pattern, int]]] = defaultdict(list)
        for pattern in searched:
            if len(pattern.data) >= ANCHOR:
                starts = range(len(pattern.data) - ANCHOR + 1)
                # The most varied 8 bytes, from the end: all PNG files begin alike.
                start = max(starts, key=lambda at: (len(set(pattern.data[at : at + ANCHOR])), at))
                self.anchored[int.from_bytes(pattern.data[start : start + ANCHOR], "little")].append((pattern, start))
        self.anchors = np.array(sorted(self.anchored), np.uint64)
        # Sparse, or most places would look like one of many anchors.
        self.shift = np.uint64(64 - max(16, min(24, (16 * len(self.anchors)).bit_length())))
        self.table = np.zeros(1 << (64 - int(self.shift)), bool)
        self.table[self._slots(self.anchors)] = True
        shields = [shield for pattern in searched for shield in pattern.shields]
        longest = max(map(len, (*(pattern.data for pattern in searched), *(data for _, data in shields))), default=0)
        self.behind = longest + 4  # bytes that must be there behind a search term's begin; with the character after it
        self.before = max((at for at, _ in shields), default=0) + 4

    def _slots(self, words: Any) -> Any:
        return (words * SCATTER) >> self.shift

    def _candidates(self, lowered: bytes) -> Iterator[tuple[int, int]]:
        """Places whose 8 bytes are an anchor, and the anchor."""
        if ANCHOR <= len(lowered) <= SMALL:
            yield from self._among(np.ndarray((len(lowered) - ANCHOR + 1,), "<u8", lowered, strides=(1,)), 0, 1)
            return
        for start in range(0, len(lowered), BLOCK):
            for offset in range(start, min(start + ANCHOR, len(lowered) - ANCHOR + 1)):
                count = min(BLOCK, len(lowered) - offset) // ANCHOR
                yield from self._among(np.frombuffer(lowered, "<u8", count=count, offset=offset), offset, ANCHOR)

    def _among(self, words: Any, offset: int, step: int) -> Iterator[tuple[int, int]]:
        """Args: words: eight bytes each, the first at an offset, others a step further."""
        likely = np.flatnonzero(self.table[self._slots(words)])
        for at in likely[np.isin(words[likely], self.anchors)] if len(likely) else ():
            yield offset + step * int(at), int(words[at])

    def matches(self, data: bytes) -> Iterator[tuple[int, Pattern]]:
        """Where which search term stands."""
        lowered = data.lower()
        if len(self.anchors):
            for at, anchor in self._candidates(lowered):
                for pattern, start in self.anchored[anchor]:
                    begin = at - start
                    if begin >= 0 and lowered.startswith(pattern.data, begin) and _counts(pattern, data, lowered, begin):
                        yield begin, pattern
        for pattern in self.short:
            begin = lowered.find(pattern.data)
            while begin >= 0:
                if _counts(pattern, data, lowered, begin):
                    yield begin, pattern
                begin = lowered.find(pattern.data, begin + 1)

    def _only_folded(self, data: bytes, begins: bool = True) -> int:
        """Words that stand in a text in a form that only folding all of it shows."""
        code = None if data.isascii() and b"\0" not in data else _encoding(data, begins)  # lowered is folded
        if code is None:
            return 0
        text = folded(data.decode(code, "replace")).encode("utf-8", "replace")
        plain, shown = ({(pattern.term, pattern.exact) for _, pattern in self.matches(raw)} for raw in (data, text))
        return len({term for term, exact in shown - plain if not exact})

    def count(self, stream: Readable, digest: Any = None) -> int:
        """How many terms stand in a stream, also across the borders of what is read at once. Args: digest: updated too."""
        total, data, begin, first, last = 0, b"", 0, True, False
        while not last:
            chunk = stream.read(CHUNK)
            last = not chunk
            if digest is not None:
                digest.update(chunk)
            data += chunk
            # A search term is counted once: with the data in which its begin lies before `limit` and all that decides is there.
            limit = len(data) if last else max(begin, len(data) - self.behind)
            total += len({(at, pattern.term) for at, pattern in self.matches(data) if begin <= at < limit})
            total += self._only_folded(data, first) if chunk else 0
            kept, first = max(0, limit - self.before), False
            data, begin = data[kept:], limit - kept
        return total

    def count_values(self, values: Iterable[bytes]) -> int:
        """How many search terms stand in values that a file holds in another form, each by itself."""
        data = b"\0".join(values)
        return len({(at, pattern.term) for at, pattern in self.matches(data)}) + self._only_folded(data.replace(b"\0", b"\n"))

    def paths_with_matches(self, names: Iterable[bytes]) -> set[int]:
        """Which of these paths hold a search term that reaches into their last part."""
        matching: set[int] = set()
        plain = list(names)
        for written in (plain, [os.fsencode(folded(os.fsdecode(name))) for name in plain]):
            starts = np.cumsum([0, *(len(name) + 1 for name in written)])
            for at, pattern in self.matches(b"\0".join(written)):
                number = int(np.searchsorted(starts, at, side="right")) - 1
                tail = int(starts[number]) + written[number].rstrip(b"/").rfind(b"/") + 1
                matching |= {number} if at + len(pattern.data) > tail else set()
        return matching


def _is_word(character: bytes, order: Literal["little", "big"]) -> bool:
    value = int.from_bytes(character, order)
    return bool(character) and value < 128 and value in WORD


def _inside_word(pattern: Pattern, lowered: bytes, begin: int, length: int) -> bool:
    before, behind = lowered[max(0, begin - pattern.unit) : begin], lowered[begin + length : begin + length + pattern.unit]
    return _is_word(before, pattern.order) or _is_word(behind, pattern.order)


def _counts(pattern: Pattern, data: bytes, lowered: bytes, begin: int) -> bool:
    """Whether what stands there is the search term itself, and not a part of something else."""
    if pattern.exact:
        return data.startswith(pattern.term, begin)  # type: ignore[arg-type]
    if not pattern.unit:
        return True
    if _inside_word(pattern, lowered, begin, len(pattern.data)):
        return False
    return not any(
        begin >= at and lowered.startswith(longer, begin - at) and not _inside_word(pattern, lowered, begin - at, len(longer))
        for at, longer in pattern.shields
    )
