"""Digests, seeds and parts are functions of content alone; a write leaves the old file or the new one."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import ROOT
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core import files
from lmeraser.core.digest import canonical_json, number_from, part_of, readable_json, seed_for, sha256, sha256_of_file
from lmeraser.core.files import write_atomically

words = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


def half_then(error: Exception) -> Callable[[Path], None]:
    """A writer that writes half a file and then fails."""

    def write(draft: Path) -> None:
        draft.write_bytes(b"half of the new")
        raise error

    return write


def test_numbers_seeds_and_parts_are_the_same_for_ever() -> None:
    # Frozen vectors: a change here moves every subject to another part and every training to another seed.
    numbers = (seed_for(0, "tune"), part_of("anna", 4), number_from("a", 1))
    assert numbers == (6394996759928877553, 3, 9331952569449725121)
    other = subprocess.run(
        [
            sys.executable,
            "-c",
            "from lmeraser.core.digest import *; print(seed_for(0,'tune'),part_of('anna',4),number_from('a',1))",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONHASHSEED": "77", "PATH": ""},
    )
    assert tuple(map(int, other.stdout.split())) == numbers


@given(words, st.integers(1, 64))
def test_part_of_a_subject_is_one_of_the_parts_and_never_changes(subject: str, parts: int) -> None:
    assert 0 <= part_of(subject, parts) < parts
    assert part_of(subject, parts) == part_of(str(subject), parts)


def test_subjects_spread_over_all_parts() -> None:
    counts = [0] * 4
    for index in range(400):
        counts[part_of(f"subject-{index}", 4)] += 1
    assert min(counts) > 60


def test_seeds_of_other_names_and_roots_differ() -> None:
    assert len({seed_for(root, name) for root in range(4) for name in ("tune", "pretrain", "projection")}) == 12
    assert all(0 <= seed_for(root, "tune") < 2**63 for root in range(100))


@given(words.filter(bool), words.filter(bool))
def test_parts_of_a_number_are_not_glued_together(first: str, other: str) -> None:
    assert number_from(first, other) != number_from(first + other)


@given(values)
def test_canonical_json_reads_back_and_is_one_line(value: object) -> None:
    data = canonical_json(value)
    assert json.loads(data) == value
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    assert json.loads(readable_json(value)) == value


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": [1], "a": "é"}) == canonical_json({"a": "é", "b": [1]}) == '{"a":"é","b":[1]}\n'.encode()


def test_canonical_json_refuses_what_json_cannot_say() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"a": float("nan")})


def test_digest_of_a_file_is_the_digest_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert sha256_of_file(tmp_path / "file") == sha256(b"abc" * 100_000)
    assert sha256(b"").startswith("e3b0c44298fc1c14")


def test_write_atomically_makes_folders_and_sets_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomically(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("a bug"), KeyboardInterrupt()])
def test_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(type(error)):
        write_atomically(path, half_then(error))
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_first_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "file", half_then(OSError(errno.ENOSPC, "No space left on device")))
    assert list(tmp_path.iterdir()) == []


def test_reader_never_sees_a_half_while_a_writer_is_at_work(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    seen: list[bytes] = []

    def slow(draft: Path) -> None:
        draft.write_bytes(b"new, half")
        seen.append(path.read_bytes())
        draft.write_bytes(b"new, whole")

    write_atomically(path, slow)
    assert seen == [b"old"]
    assert path.read_bytes() == b"new, whole"


def test_when_a_write_returns_the_name_is_on_the_disk_and_every_folder_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a" / "b" / "file"
    synced: list[tuple[Path, bool]] = []
    monkeypatch.setattr(files, "sync_folder", lambda folder: synced.append((folder, path.exists())))
    write_atomically(path, b"new")
    assert synced == [(tmp_path, False), (tmp_path / "a", False), (path.parent, True)]
    write_atomically(path, b"newer")
    assert synced[3:] == [(path.parent, True)]


def test_a_file_system_that_cannot_sync_a_folder_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> None:
        raise OSError(number, "fsync")

    monkeypatch.setattr(os, "fsync", lambda _: refuse(errno.EINVAL))
    files.sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: refuse(errno.EIO))
    with pytest.raises(OSError, match="fsync"):
        files.sync_folder(tmp_path)
