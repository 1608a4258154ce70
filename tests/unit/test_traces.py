"""What a term leaves in bytes: whatever the search finds has left all its traces, wherever it stands, however it is written."""

import hashlib
import io
import random
from collections.abc import Iterable

import numpy as np
import pytest
from builders import png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lmeraser.prove import finder as finding
from lmeraser.prove import traces
from lmeraser.prove.finder import Finder, Pattern, folded, image, text_patterns
from lmeraser.prove.search_terms import EXCERPT, excerpts
from lmeraser.prove.traces import Found, Gathering, needed

HEX = "0123456789abcdef"
FULL_WIDTH = "".join(chr(ord(letter) + 0xFEE0) for letter in "sitter-009")
CYRILLIC = "\u0416" * 10
FILLING = [
    b"",
    b"IDAT",
    b"\xff\xda",
    b"\0",
    b"\0\0\0",
    b" ",
    b"a",
    b"f",
    b"0",
    b"abcdef0123456789",
    b"\xff\xfe",
    b"\x89PNG",
    "é".encode(),
    b"-",
    b"_x",
]


def gathered(data: bytes, chunk: int = finding.CHUNK) -> tuple[Found, bool]:
    gathering, stream = Gathering(), io.BytesIO(data)
    while part := stream.read(chunk):
        gathering.update(part)
    return gathering.end(), gathering.folded


def may_hold(found: Found, pattern: Pattern) -> bool:
    """What the index answers: true unless a trace is missing."""
    need = needed(pattern)
    return not need or all(np.isin(values, found[kind]).all() for kind, values in need.found.items())


def names() -> st.SearchStrategy[str]:
    plain = st.text("abcdefgwz0123456789-_ .@", min_size=8, max_size=24)
    return st.one_of(plain, st.text(HEX, min_size=8, max_size=40), st.text("abcdefg é ß\u0416-09", min_size=8, max_size=20))


@st.composite
def haystacks(draw: st.DrawFn, pattern: Pattern) -> bytes:
    """A pattern's bytes between others, some of which make it part of something longer."""
    data = pattern.term if isinstance(pattern.term, bytes) else pattern.data
    around = st.lists(st.one_of(st.sampled_from(FILLING), st.binary(max_size=30)), max_size=6).map(b"".join)
    return draw(around) + data + draw(around)


def check(pattern: Pattern, data: bytes, chunk: int = finding.CHUNK) -> None:
    found, folds = gathered(data, chunk)
    if Finder([pattern]).count(io.BytesIO(data)) and not folds:
        assert may_hold(found, pattern)


@settings(max_examples=300)
@given(st.data(), names(), st.booleans())
def test_a_text_that_the_search_finds_has_left_its_traces(data: st.DataObject, name: str, whole: bool) -> None:
    pattern = data.draw(st.sampled_from(text_patterns(name, whole)))
    check(pattern, data.draw(haystacks(pattern)))


@given(st.data(), st.text(HEX, min_size=32, max_size=64))
def test_an_id_or_digest_leaves_its_traces_in_any_run_of_digits(data: st.DataObject, text: str) -> None:
    before, behind = data.draw(st.text(HEX, max_size=50)), data.draw(st.text(HEX, max_size=50))
    for pattern in text_patterns(text, False):
        assert needed(pattern)
        check(pattern, b".." + (before + text + behind).encode() + b"..")


def pictured(kind: str, number: int, size: int = 32) -> bytes:
    """A small image as a program writes many: they begin alike."""
    pixels = np.frombuffer(hashlib.shake_256(bytes([number])).digest(size * size * 3), np.uint8).reshape(size, size, 3)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **({"quality": 40} if kind != "PNG" else {}))
    return stream.getvalue()


KINDS = ["PNG", "JPEG", "WEBP"]


@given(
    st.data(),
    st.sampled_from(
        [png(1), png(2), hashlib.shake_256(b"i").digest(700), b"\xff\xd8\xff" + bytes(range(200)) * 9]
        + [pictured(kind, number, 12) for kind in KINDS for number in (1, 2)]
    ),
)
def test_an_image_that_lies_somewhere_has_left_its_traces(data: st.DataObject, content: bytes) -> None:
    pattern = image(content)
    check(pattern, data.draw(haystacks(pattern)))


@pytest.mark.parametrize("kind", KINDS)
def test_images_that_begin_alike_leave_traces_of_their_own(kind: str) -> None:
    """Else every object with images of one camera would be read at each erasure."""
    pictures = [pictured(kind, number, 16) for number in range(12)]
    for place, picture in enumerate(pictures):
        found, _ = gathered(b"..".join(pictures[:place] + pictures[place + 1 :]))
        assert not may_hold(found, image(picture))
    assert all(may_hold(found, image(picture)) for picture in pictures[:-1])


@pytest.mark.parametrize("size", [4097, 5000, 20_000, 300_000])
def test_pieces_of_a_large_image_leave_traces_wherever_the_image_lies(size: int) -> None:
    content = hashlib.shake_256(str(size).encode()).digest(size)
    pieces = excerpts(content)
    assert len(pieces) == 3
    found, _ = gathered(b"\0" * 999 + content + b"\0" * 999)
    for piece in pieces:
        assert len(piece) == EXCERPT
        assert needed(image(piece))
        assert may_hold(found, image(piece))
        assert not may_hold(gathered(hashlib.shake_256(b"other").digest(size))[0], image(piece))


@pytest.mark.parametrize("way", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("offset", range(5))
def test_a_word_leaves_its_traces_in_every_encoding_where_pieces_meet(
    way: str, offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "STEP", 4096)
    name = "kanarienvogel-009"
    data = b"\1" * (4096 - 20 + 7 * offset) + f"§{name.upper()}§".encode(way) + b"\1" * 9000
    standing = [pattern for pattern in text_patterns(name, True) if Finder([pattern]).count(io.BytesIO(data))]
    found, _ = gathered(data)
    assert standing
    for pattern in standing:
        assert needed(pattern)
        assert may_hold(found, pattern)


@pytest.mark.parametrize("where", range(4090, 4096 + 60, 3))
def test_digits_and_images_leave_traces_where_pieces_meet(where: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "STEP", 4096)
    text, picture = hashlib.sha256(b"x").hexdigest(), png(3)
    digits = next(pattern for pattern in text_patterns(text, False) if pattern.data == text.encode())
    for pattern, content in [(digits, text.encode()), (image(picture), picture)]:
        for begin in (where - 60, where - 20, where):
            found, _ = gathered(b"\1" * begin + content + b"\1" * 9000)
            assert needed(pattern)
            assert may_hold(found, pattern)


def test_what_nobody_wrote_has_left_no_traces() -> None:
    """Else the index would let everything be read: right, and of no use."""
    data = b"".join(
        f"sitter-{number:04d} {hashlib.sha256(bytes([number])).hexdigest()}".encode() + png(number) for number in range(9)
    )
    found, folds = gathered(data)
    assert not folds
    for text in ("sitter-0009", hashlib.sha256(b"none").hexdigest(), "0f" * 16, "20240117"):
        assert not any(may_hold(found, pattern) for pattern in text_patterns(text, text.startswith(("s", "2"))))
    assert not may_hold(found, image(png(77)))


@pytest.mark.parametrize("text", ["Zoë Mül", "short", CYRILLIC])
def test_what_leaves_no_traces_is_not_answered(text: str) -> None:
    assert any(not needed(pattern) for pattern in text_patterns(text, True))


def fold_starts(chunks: Iterable[bytes], patterns: list[Pattern]) -> bool:
    """Whether a search folds anything of these chunks."""
    seen: list[str | None] = []
    with pytest.MonkeyPatch.context() as patch:
        real = finding._encoding

        def encoding(data: bytes, begins: bool = True) -> str | None:
            seen.append(real(data, begins))
            return seen[-1]

        patch.setattr(finding, "_encoding", encoding)
        waiting = list(chunks)

        class Stream:
            def read(self, _: int) -> bytes:
                return waiting.pop(0) if waiting else b""

        Finder(patterns).count(Stream())
    return any(seen)


def whole_numbers(seed: int, bits: int) -> bytes:
    """As sums of features are."""
    return np.random.default_rng(seed).normal(0, 2**bits, 3000).astype("<i4").tobytes()


WRITTEN = ["plain ascii text", "folded tëxt", FULL_WIDTH, CYRILLIC * 5]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.one_of(
            st.binary(min_size=4096, max_size=9000),
            st.tuples(
                st.sampled_from(WRITTEN), st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
            ).map(lambda pair: (pair[0] * 1200).encode(pair[1])),
            st.integers(0, 255).map(lambda value: np.full(3000, value, "<i4").tobytes()),
            st.tuples(st.integers(0, 99), st.integers(0, 24)).map(lambda pair: whole_numbers(*pair)),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 60),
)
def test_a_chunk_that_some_search_folds_is_always_told(chunks: list[bytes], length: int) -> None:
    gathering = Gathering()
    for chunk in chunks:
        gathering.update(chunk)
    if fold_starts(chunks, text_patterns("a" * (8 + length), True)):
        assert gathering.folded


@pytest.mark.parametrize("seed", range(20))
def test_sums_of_features_are_no_text_wherever_a_search_begins_to_read_them(seed: int) -> None:
    """Found here: a quarter of a project's bytes was taken for UTF-16, folded, and read again at each request."""
    gathering, numbers = Gathering(), whole_numbers(seed, 14 + seed % 6)
    for _ in range(3):
        gathering.update(numbers)
    assert not gathering.folded
    assert all(finding._encoding(numbers[at:]) is None for at in range(999))


@pytest.mark.parametrize("way", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_text_behind_bytes_that_are_none_is_told(way: str) -> None:
    gathering = Gathering()
    gathering.update(random.Random(7).randbytes(9000))
    assert not gathering.folded
    gathering.update(("folded tëxt " * 900).encode(way))
    assert gathering.folded


def test_a_name_that_only_folding_shows_makes_an_object_that_is_not_remembered() -> None:
    data = f"von {FULL_WIDTH} gesandt".encode()
    assert folded(data.decode()).count("sitter-009")
    assert gathered(data)[1]
