"""One odd file never ends a scan: it is searched, or told; and names, writings and places hide nothing."""

import gzip
import io
import os
import socket
import struct
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import CANARY_SUBJECT
from hypothesis import given
from hypothesis import strategies as st
from memory_store import MemoryStore

from lmeraser.prove import archives
from lmeraser.prove import scan as search
from lmeraser.prove.finder import Finder, text_patterns
from lmeraser.prove.scan import StoreReport, scan
from lmeraser.prove.search_terms import SearchTerms, containing
from lmeraser.stores.folder import FolderStore

NAME = CANARY_SUBJECT
ACCENTED = "Zoë Müller-Ångström"
SEARCH_TERMS = SearchTerms(ids=frozenset({"0f" * 16}), names=frozenset({NAME, ACCENTED}))


def is_erased(subject: str) -> bool:
    return subject == NAME


def look(store: Any, search_terms: SearchTerms = SEARCH_TERMS) -> StoreReport:
    return scan([store], search_terms, is_erased)[0]


def kinds(store: Any, search_terms: SearchTerms = SEARCH_TERMS) -> set[str]:
    return {finding.kind for finding in look(store, search_terms).residue}


def parquet(column: str, values: pa.Array, **options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({column: values, "score": pa.array([1.0] * len(values))}), stream, **options)
    return stream.getvalue()


class Tagged(pa.ExtensionType):  # type: ignore[misc]  # pyarrow is untyped
    def __init__(self) -> None:
        super().__init__(pa.string(), "test.tagged")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> "Tagged":
        return cls()


SHAPES = {
    "list": lambda names: pa.array([[name] for name in names]),
    "list of lists": lambda names: pa.array([[[name], None] for name in names]),
    "fixed list": lambda names: pa.array([[name, name] for name in names], pa.list_(pa.string(), 2)),
    "struct": lambda names: pa.array([{"first": name, "age": 3} for name in names]),
    "struct of lists": lambda names: pa.array([{"all": [name, None]} for name in names]),
    "map": lambda names: pa.array([[(name, "x")] for name in names], pa.map_(pa.string(), pa.string())),
    "dictionary": lambda names: pa.array(names).dictionary_encode(),
    "binary": lambda names: pa.array([name.encode() for name in names], pa.binary()),
    "not UTF-8": lambda names: pa.array([name.encode() + b"\xff" for name in names] + [names[-1].encode()], pa.binary()),
    "large": lambda names: pa.array(names, pa.large_string()),
    "extension": lambda names: pa.ExtensionArray.from_storage(Tagged(), pa.array(names)),
}


@pytest.mark.parametrize("column", ["subject", "unit", "SUBJECT"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_column_of_any_shape_shows_who_is_in_it(shape: str, column: str) -> None:
    for compression in ("NONE", "ZSTD"):
        content = parquet(column, SHAPES[shape](["bob", NAME]), compression=compression)
        assert "subject" in kinds(MemoryStore({"a.parquet": content})), compression
        clean = parquet(column, SHAPES[shape](["bob", "cem"]), compression=compression)
        assert kinds(MemoryStore({"a.parquet": clean})) == set()


def test_a_compressed_column_of_any_name_is_searched() -> None:
    remarks = pa.array([f"asked by {NAME}, twice {number}" for number in range(99)])
    content = parquet("remarks", remarks, compression="GZIP", write_statistics=False)
    assert NAME.encode() not in content
    assert "bytes" in kinds(MemoryStore({"a.parquet": content}))


@given(
    st.binary(max_size=200),
    st.sampled_from([b"PAR1", b"PARE", b"PK\x03\x04", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\x00", b"%PDF", b""]),
)
def test_whatever_a_file_holds_a_scan_ends(content: bytes, magic: bytes) -> None:
    report = look(MemoryStore({"odd": magic + content, "other": f"of {NAME}.".encode()}))
    assert report.objects == 2
    assert {finding.kind for finding in report.residue} <= {"bytes", "unreadable"}
    assert "bytes" in {finding.kind for finding in report.residue}


@given(st.data())
def test_damaged_parquet_is_told_and_never_a_traceback(data: st.DataObject) -> None:
    whole = bytearray(parquet("subject", pa.array(["bob", "cem"]), compression="ZSTD"))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(4, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(8, len(whole)))
    assert kinds(MemoryStore({"a": bytes(whole[:cut])})) <= {"unreadable"}


def test_an_encrypted_parquet_is_not_taken_for_clean() -> None:
    assert kinds(MemoryStore({"a": b"PARE" + bytes(100) + struct.pack("<I", 9) + b"PARE"})) == {"unreadable"}


def test_what_keeps_no_content_or_cannot_be_opened_ends_no_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "plain.txt").write_text("nothing")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(root)
        listener.bind("socket")
    (root / "loop").symlink_to("loop")
    (root / "round").symlink_to(".")
    (root / "gone").symlink_to("nowhere")
    (root / os.fsdecode(b"not-utf8-\xff")).write_text("nothing")
    deep = root
    for _ in range(60):
        deep = deep / "d"
    deep.mkdir(parents=True)
    report = look(FolderStore("workspace", root))
    assert report.residue == ()
    assert report.exempt == {search.SPECIAL: 2}
    (deep / "note").write_text(f"of {NAME}")
    assert kinds(FolderStore("workspace", root)) == {"bytes"}


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"of {NAME}")
    real = os.open

    def closed(path: Any, *given: Any, **more: Any) -> int:  # modes do not stop root
        if str(path).endswith("a.txt"):
            raise PermissionError(13, "Permission denied")
        return real(path, *given, **more)

    monkeypatch.setattr(os, "open", closed)
    report = look(FolderStore("workspace", tmp_path))
    assert {finding.kind: finding.count for finding in report.residue} == {"unreadable": 1, "bytes": 1}
    assert set(report.where) == {"a.txt", "b.txt"}
    assert report.unreadable == ("a.txt",)


def test_a_folder_that_cannot_be_listed_is_told_and_the_others_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("closed", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(f"of {NAME}")
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).rstrip("/").endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert {finding.kind: finding.count for finding in look(FolderStore("workspace", tmp_path)).residue} == {
        "unreadable": 1,
        "bytes": 1,
    }


def test_a_folder_too_deep_for_the_system_is_told(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(30):
            os.mkdir("n" * 200, dir_fd=here)
            below = os.open("n" * 200, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)
    (tmp_path / "note").write_text("nothing")
    assert kinds(FolderStore("workspace", tmp_path)) == {"unreadable"}


def test_a_huge_sparse_file_is_searched_without_its_holes(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as stream:
        stream.write(f"by {NAME} ".encode())
        stream.seek(1 << 40)
        stream.write(f" of {NAME}".encode())
    report = look(FolderStore("workspace", tmp_path))
    assert [(finding.kind, finding.count) for finding in report.residue] == [("bytes", 2)]
    assert report.exempt == {search.SPARSE: 1}


def test_a_file_that_grows_while_it_is_read_is_read_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 100)
    with (tmp_path / "log").open("rb") as stream, (tmp_path / "log").open("ab") as writer:
        solid = search.Solid(stream)
        writer.write(b"y" * 100)
        writer.flush()
        assert solid.read(60) + solid.read(60) + solid.read(60) == b"x" * 100


@pytest.mark.parametrize("path", [f"{NAME}.txt", f"{NAME}/note.txt", f"{NAME}_0001.png", f"x/{NAME.upper()}", f"of-{NAME}-2/a"])
def test_names_of_files_and_folders_are_read(tmp_path: Path, path: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("nothing")
    report = look(FolderStore("workspace", tmp_path))
    assert [(finding.kind, finding.count) for finding in report.residue] == [("name of a file or folder", 1)]
    assert NAME not in str(report.residue)
    assert report.where == (), "a name in a path is not told by the path"


def test_empty_folders_pipes_and_links_have_names_too(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    os.mkfifo(tmp_path / f"{NAME}.pipe")
    (tmp_path / f"{NAME}.link").symlink_to("x")
    (tmp_path / "plain").write_text("nothing")
    assert {finding.kind: finding.count for finding in look(FolderStore("workspace", tmp_path)).residue} == {
        "name of a file or folder": 3
    }


def written_anyhow(name: str) -> list[bytes]:
    """A name as programs write it."""
    texts = [name, name.upper(), name.lower(), name.title(), name.swapcase(), f"{name}_0001.png", f"{name}-2", f"x_{name}.csv"]
    texts += [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD") for text in texts]
    return [f"see {text} now".encode(code) for text in texts for code in ("utf-8", "utf-16", "utf-16-be", "utf-32-le")]


@pytest.mark.parametrize("name", [NAME, ACCENTED])
def test_a_name_is_found_however_it_is_written(name: str) -> None:
    for content in written_anyhow(name):
        assert kinds(MemoryStore({"a": content})) == {"bytes"}, content
    wide = "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in NAME)
    assert kinds(MemoryStore({"a": f"see {wide} now".encode()})) == {"bytes"}
    assert kinds(MemoryStore({"a": f"see {NAME[:6]}\u200b{NAME[6:]} now".encode()})) == {"bytes"}


@given(st.text("aA1_- .", max_size=3), st.text("aA1_- .", max_size=3))
def test_letters_and_digits_make_another_word_and_nothing_else_does(before: str, behind: str) -> None:
    joined = before[-1:].isalnum() or behind[:1].isalnum()
    for code in ("utf-8", "utf-16-le", "utf-16-be"):
        matches = Finder(text_patterns(NAME, True)).matches(f"{before}{NAME}{behind}".encode(code))
        assert bool(list(matches)) != joined, code


def test_a_name_within_a_retained_one_counts_everywhere_else() -> None:
    longer = f"{NAME}-b"
    search_terms = SearchTerms(names=frozenset({NAME}), shields=containing({NAME}, [longer, "bob", NAME]))
    assert search_terms.shields == {longer}
    for text in (longer, longer.upper(), f"x {longer}_1"):
        assert kinds(MemoryStore({"a": text.encode(), "b": text.encode("utf-16-le")}), search_terms) == set()
    for text in (NAME, f"{NAME}-c", f"{longer}s", f"{longer} and {NAME}"):
        assert kinds(MemoryStore({"a": text.encode()}), search_terms) == {"bytes"}, text
    assert any("retained people contain" in line for line in search_terms.exempt())


def test_every_exemption_of_the_search_terms_is_reported_without_names() -> None:
    exempt = SearchTerms(names=frozenset({NAME}), shields=frozenset({f"{NAME}-b"}), shared=3, short=2).exempt()
    assert len(exempt) == 4
    assert NAME not in " ".join(exempt)
    assert all(0 < len(line) < 480 and line.isprintable() for line in exempt)


def test_search_terms_from_before_are_still_understood() -> None:
    raw = SEARCH_TERMS.to_json()
    old = {name: raw[name] for name in ("objects", "run_entries", "ids", "texts", "names", "images")}
    assert SearchTerms.from_json(old) == SEARCH_TERMS


def test_packed_files_are_looked_into_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    content = f"of {NAME}".encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("note.txt", content)
    named = io.BytesIO()
    with zipfile.ZipFile(named, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{NAME}.txt", b"nothing")
    for packed_file in (gzip.compress(content), packed.getvalue()):
        assert content not in packed_file
        assert "bytes" in kinds(MemoryStore({"a": packed_file}))
    assert "name of a file or folder" in kinds(MemoryStore({"a": named.getvalue()}))
    for packed_file in (
        b"7z\xbc\xaf\x27\x1c" + bytes(50),
        gzip.compress(gzip.compress(content)),
        gzip.compress(content)[:-4] + b"xxxx",
    ):
        assert look(MemoryStore({"a": packed_file})).exempt == {search.PACKED: 1}
    monkeypatch.setattr(archives, "LIMIT", 10)
    assert look(MemoryStore({"a": gzip.compress(bytes(5000))})).exempt == {search.PACKED: 1}


def test_links_that_lead_somewhere_are_named_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "note").write_text(f"of {NAME}")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "linked").symlink_to(tmp_path / "elsewhere")
    report = look(FolderStore("workspace", tmp_path / "project"))
    assert report.residue == ()
    assert report.links == (str(tmp_path / "elsewhere"),)
