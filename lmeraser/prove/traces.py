"""What any search term must leave in bytes that hold it: so that an object that was read whole once can be asked later for terms
that nobody knew then. If one trace of a term is missing in an object, the term is not in it; that answer is never wrong. If all
are there it may be, and the object is read.

    word     eight printable characters in a row, lowered; in UTF-16 and UTF-32 too (zeros between them)
    digits   of long runs of hex digits (ids, digests), which would be too many words: the least of each 17 neighbouring pieces
             of 16 digits (winnowing: Schleimer, Wilkerson and Aiken 2003), so that any 32 digits in a row leave one
    head     the first 64, 128, 256, 1024 and 4096 bytes from where an image, or what it shows, may begin: a small image that lies
             there leaves one of each. Images of one camera or program begin alike for hundreds of bytes
    anchor   eight bytes that a fixed hash picks, one place in 512: pieces of large images are cut around one (`excerpts`)

What no trace can answer (a name without eight printable ASCII characters in a row) makes every object one that is read.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmeraser.prove.finder import SCATTER, Pattern, may_be_folded

WORD, DIGITS, ANCHOR, HEAD = "word", "digits", "anchor", "head"
LENGTH = 8  # characters of a word, bytes of an anchor
STEPS = (2, 4)  # bytes of a character in UTF-16 and UTF-32
GRAM, SPAN = 16, 17  # hex digits of a piece; neighbouring pieces of which the least is kept
LEAST = GRAM + SPAN - 1  # hex digits in a row that surely leave one
RARE, SPREAD = np.uint64(55), np.uint64(0xD6E8FEB86659FD93)  # one place of 2^(64 - 55); an odd constant, not the finder's
FEW = 64  # bytes for one word, from which on words are looked at one by one: in numbers they are an accident
VARIED = 6  # different bytes of an anchor: blank areas are alike
IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")  # how images begin
# How what they show begins: of PNG (W3C PNG, 11.2.3), JPEG (ITU-T T.81, B.2.3: a length of at most 14 follows in two bytes; the
# marker alone stands in numbers thousands of times) and WebP (RFC 9649, 2.5 and 2.6).
SHOWN = (b"IDAT", b"\xff\xda\x00", b"VP8 ", b"VP8L")
HEADS = (64, 128, 256, 1024, 4096)  # bytes
STEP, AHEAD = 1 << 20, HEADS[-1]  # bytes that are looked at together; that are seen behind them
MANY = 1 << 16  # traces of one kind in a step above which repeated ones are dropped at once
MEMORY = 1 << 14  # bytes of what was read before with which a search may begin to read a chunk
TEXT, DIGIT = np.zeros(256, bool), np.zeros(256, bool)
TEXT[0x20:0x7F] = True
DIGIT[list(b"0123456789abcdef")] = True
VALUE = np.zeros(256, np.uint64)
VALUE[list(b"0123456789abcdef")] = range(16)
Found = dict[str, Any]  # kind of trace to its values, uint64


def distinct(values: Any) -> Any:
    """Sorted, each once. np.unique hashes numbers since numpy 2.3, and takes 6 to 90 times as long for a million of them."""
    ordered = np.sort(values)
    first = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def _in_a_row(flags: Any, count: int, step: int = 1) -> Any:
    """From where so many flags stand in a row. Args: count: a power of two; step: places from one to the next."""
    reach = 1
    while reach < count:
        flags = flags[: -reach * step] & flags[reach * step :]
        reach *= 2
    return flags


def _covered(starts: Any, length: int, size: int) -> Any:
    """Which of `size` places lie within `length`, a power of two, from where a flag stands."""
    covered = np.zeros(size, bool)
    covered[: len(starts)] = starts
    reach = 1
    while reach < length:
        covered[reach:] |= covered[:-reach].copy()
        reach *= 2
    return covered


def _at(data: Any, places: Any, step: int = 1) -> Any:
    """Eight bytes from each place as numbers. Args: step: of them only every so many-th."""
    if not len(places):
        return np.zeros(0, np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(data, (LENGTH - 1) * step + 1)[places][:, ::step]
    return np.ascontiguousarray(windows).view("<u8").ravel()


def narrow_words(data: Any, limit: int, digits: bool) -> Any:
    """Words of one byte a character that begin before `limit`, but for those within 16 hex digits in a row.

    Args: data: lowered bytes; digits: also words of hex digits alone, which a longer run of them would hide.
    """
    places = np.flatnonzero(_in_a_row(TEXT[data], LENGTH)[:limit])
    if len(places) < len(data) // FEW and not DIGIT[_at(data, places).view(np.uint8)].reshape(-1, LENGTH).all(axis=1).any():
        return _at(data, places)
    digit = DIGIT[data]
    only_digits = _in_a_row(digit, LENGTH)
    if digits:
        only_digits = only_digits & _covered(_in_a_row(digit, GRAM), GRAM, len(data))[: len(only_digits)]
    return _at(data, places[~only_digits[places]])


def wide_words(data: Any, limit: int) -> Any:
    """Words in UTF-16 and UTF-32, of either order: characters with nothing but zeros between them."""
    found = [np.zeros(0, np.uint64)]
    text, zero = TEXT[data], data == 0
    for step in (step for step in STEPS if len(data) > (LENGTH - 1) * step):
        pair = text[: len(text) - step + 1].copy()
        for behind in range(1, step):
            pair &= zero[behind : len(zero) - step + 1 + behind]
        four = _in_a_row(pair, 4, step)
        seven = four[: -3 * step] & four[3 * step :]
        last = text[7 * step :]
        count = min(len(seven), len(last))
        found.append(_at(data, np.flatnonzero((seven[:count] & last[:count])[:limit]), step))
    return np.concatenate(found)


def digits(data: Any, limit: int) -> Any:
    """Of each 32 hex digits in a row that begin before `limit`, the least piece."""
    run = _in_a_row(DIGIT[data], LEAST)[:limit]
    if not run.any():
        return np.zeros(0, np.uint64)
    kept = np.flatnonzero(_covered(run, LEAST, len(data)))  # the digits of long runs alone, each in one piece
    pieces, width = VALUE[data[kept]], 1
    while width < GRAM:
        pieces = (pieces[:-width] << np.uint64(4 * width)) | pieces[width:]
        width *= 2
    least = pieces * SCATTER  # in an order that has nothing to do with their digits
    for reach in (1, 2, 4, 8):
        least = np.minimum(least[:-reach], least[reach:])
    least = np.minimum(least[:-1], least[1:])
    return least[np.flatnonzero(run[kept[: len(least)]])]


def anchors(data: Any, limit: int) -> Any:
    """Where eight bytes lie that are an anchor."""
    places = []
    for offset in range(min(LENGTH, max(0, len(data) - LENGTH + 1))):
        words = data[offset : offset + (len(data) - offset) // LENGTH * LENGTH].view("<u8")
        places.append(offset + LENGTH * np.flatnonzero((words * SPREAD) >> RARE == 0))
    at = np.sort(np.concatenate(places)) if places else np.zeros(0, np.int64)
    at = at[at < limit]
    if not len(at):
        return at
    sorted_bytes = np.sort(_at(data, at).view(np.uint8).reshape(-1, LENGTH), axis=1)
    return at[(np.diff(sorted_bytes, axis=1) != 0).sum(axis=1) + 1 >= VARIED]


def head(data: bytes) -> int:
    """The head that these bytes are."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def heads(data: bytes, limit: int) -> Any:
    """Of each place where an image, or what it shows, may begin, all its heads."""
    lengths = [(at, length) for at in _beginnings(data, limit) for length in HEADS if at + length <= len(data)]
    return np.array([head(data[at : at + length]) for at, length in lengths], np.uint64)


def _beginnings(data: bytes, limit: int) -> Iterator[int]:
    for magic in (*IMAGES, *SHOWN):
        at = data.find(magic)
        while 0 <= at < limit:
            yield at
            at = data.find(magic, at + 1)


def _found(data: bytes, limit: int) -> Iterator[tuple[str, Any]]:
    raw, lowered = np.frombuffer(data, np.uint8), np.frombuffer(data.lower(), np.uint8)
    yield WORD, narrow_words(lowered, limit, digits=True)
    yield WORD, wide_words(lowered, limit)
    yield DIGITS, digits(lowered, limit)
    yield ANCHOR, _at(raw, anchors(raw, limit))
    yield HEAD, heads(data, limit)


class Gathering:
    """Gathers the traces of an object while somebody else reads it. Attributes: folded: some search would fold its text."""

    def __init__(self) -> None:
        self.folded = False
        self._found: dict[str, list[Any]] = {WORD: [], DIGITS: [], ANCHOR: [], HEAD: []}
        self._waiting = b""
        self._before: bytes | None = None

    def update(self, chunk: bytes) -> None:
        """Take what was read next. Chunks are those of the search: where they end decides what it folds."""
        if not chunk:
            return
        self.folded = self.folded or may_be_folded(self._before or b"", chunk, self._before is None)
        self._before = ((self._before or b"") + chunk[-MEMORY:])[-MEMORY:]
        self._waiting += chunk
        at = 0
        while len(self._waiting) - at >= STEP + AHEAD:
            self._take(self._waiting[at : at + STEP + AHEAD], STEP)
            at += STEP
        self._waiting = self._waiting[at:]

    def _take(self, data: bytes, limit: int) -> None:
        for kind, values in _found(data, limit):
            if len(values):  # a text has a word at every letter
                self._found[kind].append(distinct(values) if len(values) > MANY else values)

    def end(self) -> Found:
        """All of them; some more than once."""
        self._take(self._waiting, len(self._waiting))
        self._waiting = b""
        return {kind: np.concatenate([np.zeros(0, np.uint64), *values]) for kind, values in self._found.items()}


@dataclass(frozen=True)
class Needed:
    """Traces that a term leaves wherever it stands. Attributes: found: at least one, else nothing can be told."""

    found: Found

    def __bool__(self) -> bool:
        return any(len(values) for values in self.found.values())


def needed(pattern: Pattern) -> Needed:
    """What an object that holds a pattern must have."""
    data = pattern.term if isinstance(pattern.term, bytes) else pattern.data
    raw = np.frombuffer(data, np.uint8)
    if pattern.exact:
        # Of each place the longest head that fits: it tells most.
        longest = {at: length for at in _beginnings(data, len(data)) for length in HEADS if at + length <= len(data)}
        own = np.array([head(data[at : at + length]) for at, length in longest.items()], np.uint64)
        return Needed({HEAD: distinct(own), ANCHOR: distinct(_at(raw, anchors(raw, len(raw))))})
    # Around a whole word stands neither letter nor digit: no longer run of digits hides a word of it.
    words = (narrow_words(raw, len(raw), digits=pattern.unit == 1), wide_words(raw, len(raw)))
    return Needed({WORD: distinct(np.concatenate(words)), DIGITS: distinct(digits(raw, len(raw)))})
