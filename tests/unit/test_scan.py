"""The scan finds what is left, of every kind and in every place; finding nothing counts only if it looked."""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import CANARY_SUBJECT, refused
from hypothesis import given
from hypothesis import strategies as st
from memory_store import MemoryStore

from lmeraser.core.errors import VerificationError
from lmeraser.prove import finder
from lmeraser.prove import search_terms as sought
from lmeraser.prove.finder import Finder, image
from lmeraser.prove.scan import scan
from lmeraser.prove.search_terms import SearchTerms, excerpts

GONE = b"what depended on her"
MD5 = hashlib.md5(GONE, usedforsecurity=False).hexdigest()
FOLDER = "cc" + "3" * 30 + ".dir"
ENTRY = f"{'4' * 64}/{'5' * 64}"
ID = "0f" * 16
IMAGE = bytes(range(7, 207))
SEARCH_TERMS = SearchTerms(
    objects=frozenset({MD5, FOLDER}),
    run_entries=frozenset({ENTRY}),
    ids=frozenset({ID}),
    texts=frozenset({"the user's own canary"}),
    names=frozenset({CANARY_SUBJECT}),
    images=frozenset({IMAGE}),
)


def is_erased(subject: str) -> bool:
    return subject == CANARY_SUBJECT


def parquet(compression: str = "ZSTD", **columns: list[str]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, compression=compression)
    return stream.getvalue()


def run_entry(md5: str) -> bytes:
    return f"cmd: x\ndeps:\n- path: a\n  md5: {md5}\nouts:\n- path: b\n  md5: {'7' * 32}\n".encode()


def key_of(md5: str) -> str:
    return f"files/md5/{md5[:2]}/{md5[2:]}"


# What could be left, by what must be told: each alone must be found.
PLANTED = {
    "object": ("condemned object", {key_of(MD5): b"other bytes"}),
    "object of DVC 2": ("condemned object", {f"{MD5[:2]}/{MD5[2:]}": b"other bytes"}),
    "folder": ("condemned object", {key_of(FOLDER): b"[]"}),
    "run entry": ("condemned run entry", {f"runs/44/{ENTRY}": b"damaged"}),
    "manifest": (
        "names a condemned object",
        {key_of("d" * 32 + ".dir"): json.dumps([{"md5": MD5, "relpath": "x"}]).encode()},
    ),
    "another run entry": ("names a condemned object", {f"runs/66/{'6' * 64}/{'7' * 64}": run_entry(MD5)}),
    "copy under another name": ("condemned content", {"artifacts/old.bin": GONE}),
    "half a copy, whole by luck": ("condemned content", {key_of(MD5) + ".Xk2.tmp": GONE}),
    "records": ("subject", {"any.parquet": parquet(subject=["bob", CANARY_SUBJECT])}),
    "records without a name": ("subject", {key_of("e" * 32): parquet(subject=["bob", CANARY_SUBJECT])}),
    "leaves": ("subject", {"leaves": parquet(unit=["bob", CANARY_SUBJECT])}),
    "members": ("record", {key_of("e" * 32): parquet(id=["ab" * 16, ID])}),
    "id in a log": ("bytes", {"logs/run.log": f"at {ID}: done".encode()}),
    "name in a log": ("bytes", {"logs/run.log": f"subject {CANARY_SUBJECT}, done".encode()}),
    "name at the very end": ("bytes", {"x": b"of " + CANARY_SUBJECT.encode()}),
    "name at the very start": ("bytes", {"x": CANARY_SUBJECT.encode() + b" asked"}),
    "image": ("bytes", {"x.tmp": b"..." + IMAGE + b"..."}),
    "canary": ("bytes", {"prefect.db": b"\0\1" + b"the user's own canary" + b"\2"}),
}


@pytest.mark.parametrize("what", PLANTED)
def test_every_kind_of_leftover_is_found(what: str) -> None:
    kind, files = PLANTED[what]
    clean = {"notes.txt": b"nothing", key_of("f" * 32): parquet(subject=["bob"], id=["ab" * 16], unit=["bob"])}
    assert scan([MemoryStore(clean)], SEARCH_TERMS, is_erased)[0].residue == ()
    report = scan([MemoryStore(clean | files)], SEARCH_TERMS, is_erased)[0]
    assert {(finding.store, finding.kind, finding.count) for finding in report.residue} >= {("memory", kind, 1)}


def test_a_report_names_no_search_term_and_no_content() -> None:
    files = {key: content for _, planted in PLANTED.values() for key, content in planted.items()}
    residue = str([report.residue for report in scan([MemoryStore(files)], SEARCH_TERMS, is_erased)])
    for secret in (CANARY_SUBJECT, ID, "canary", MD5, "run.log"):
        assert secret not in residue


def test_what_was_looked_at_is_counted() -> None:
    reports = scan([MemoryStore({"a": b"12345", "b": b"123"}), MemoryStore({}, "empty")], SEARCH_TERMS, is_erased)
    assert [(report.store, report.objects, report.bytes) for report in reports] == [("memory", 2, 8), ("empty", 0, 0)]


def test_looking_for_nothing_or_at_nothing_fails() -> None:
    assert "nothing to look for" in refused(VerificationError, lambda: scan([MemoryStore({"a": b"1"})], SearchTerms(), is_erased))
    assert "no file to look at" in refused(VerificationError, lambda: scan([MemoryStore()], SEARCH_TERMS, is_erased))
    assert "no file to look at" in refused(VerificationError, lambda: scan([], SEARCH_TERMS, is_erased))


def test_a_name_within_another_name_is_no_hit() -> None:
    files = {"a": f"{CANARY_SUBJECT}4 and x{CANARY_SUBJECT}".encode()}
    assert scan([MemoryStore(files)], SEARCH_TERMS, is_erased)[0].residue == ()


def test_names_are_found_as_json_writes_them() -> None:
    search_terms = SearchTerms(names=frozenset({"Zoë Müller"}))
    reports = scan([MemoryStore({"a": json.dumps({"who": "Zoë Müller"}).encode()})], search_terms, is_erased)
    assert reports[0].residue[0].kind == "bytes"


def test_damaged_parquet_is_searched_by_its_bytes() -> None:
    whole = parquet("NONE", subject=[CANARY_SUBJECT])
    reports = scan([MemoryStore({"a": whole[: len(whole) - 6]})], SEARCH_TERMS, is_erased)
    assert {finding.kind for finding in reports[0].residue} == {"bytes", "unreadable"}


def test_search_terms_survive_the_pipe() -> None:
    assert SearchTerms.from_json(json.loads(json.dumps(SEARCH_TERMS.to_json()))) == SEARCH_TERMS


def test_excerpts_of_a_large_image_come_from_its_second_half() -> None:
    image = hashlib.shake_256(b"image").digest(20_000)
    parts = excerpts(image)
    assert len(parts) == sought.EXCERPTS
    assert all(len(part) == sought.EXCERPT and image.find(part) >= len(image) // 2 for part in parts)
    assert excerpts(b"small") == {b"small"}


def naive(data: bytes, patterns: Iterable[bytes]) -> int:
    return sum(data.startswith(term, at) for term in patterns for at in range(len(data)))


def few(size: int) -> st.SearchStrategy[bytes]:
    """Bytes of three kinds: search terms overlap and repeat."""
    return st.lists(st.integers(0, 2), min_size=1, max_size=size).map(bytes)


@given(st.lists(few(12), min_size=1, max_size=4, unique=True), few(120), st.integers(1, 40))
def test_every_search_term_is_counted_once_wherever_reading_breaks(search_terms: list[bytes], data: bytes, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finder, "CHUNK", chunk)
        digest = hashlib.md5(usedforsecurity=False)
        assert Finder(map(image, search_terms)).count(io.BytesIO(data), digest) == naive(data, search_terms)
        assert digest.digest() == hashlib.md5(data, usedforsecurity=False).digest()


@pytest.mark.parametrize("chunk", range(1, 60))
def test_a_word_is_one_wherever_reading_breaks(chunk: int) -> None:
    data = f"{CANARY_SUBJECT} x{CANARY_SUBJECT} {CANARY_SUBJECT}x {CANARY_SUBJECT}".encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finder, "CHUNK", chunk)
        words = Finder(SEARCH_TERMS.patterns())
        assert words.count(io.BytesIO(data), hashlib.md5(usedforsecurity=False)) == 2


def test_a_file_that_goes_while_we_look_is_no_error() -> None:
    class Fading(MemoryStore):
        def list(self) -> Iterator[tuple[str, int]]:
            yield "gone", 3
            yield from super().list()

    [report] = scan([Fading({"a": b"1"})], SEARCH_TERMS, is_erased)
    assert report.objects == 1
