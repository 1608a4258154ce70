"""safetensors files: equal content gives equal bytes; the note is read alone; a broken file is refused."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmeraser.core.errors import ProjectError
from lmeraser.data.tensors import read_note, read_tensors, write_tensors

ARRAYS: dict[str, NDArray[Any]] = {
    "weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "bias": np.array([1.5], dtype=np.float64),
}
NOTE = {"labels": ["é", "b"], "state": "tuned", "n": 3}


def headed(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_arrays_and_note_read_back(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", ARRAYS, NOTE)
    arrays, note = read_tensors(tmp_path / "file")
    assert note == NOTE
    assert {name: array.dtype for name, array in arrays.items()} == {name: array.dtype for name, array in ARRAYS.items()}
    assert all(np.array_equal(arrays[name], array) for name, array in ARRAYS.items())


def test_equal_content_gives_equal_bytes_whatever_the_order_and_the_layout_in_memory(tmp_path: Path) -> None:
    write_tensors(tmp_path / "one", ARRAYS, NOTE)
    turned = {name: np.asfortranarray(array) for name, array in reversed(ARRAYS.items())}
    write_tensors(tmp_path / "other", turned, dict(reversed(NOTE.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_one_changed_number_changes_the_bytes(tmp_path: Path) -> None:
    write_tensors(tmp_path / "one", ARRAYS, NOTE)
    write_tensors(tmp_path / "other", ARRAYS | {"bias": np.array([1.25])}, NOTE)
    assert (tmp_path / "one").read_bytes() != (tmp_path / "other").read_bytes()


def test_note_is_read_without_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_tensors(path, ARRAYS, NOTE)
    data = path.read_bytes()
    path.write_bytes(data[: 8 + struct.unpack("<Q", data[:8])[0]])  # the header alone: no tensor is left to load
    assert read_note(path) == NOTE
    refused(ProjectError, lambda: read_tensors(path))


def test_file_without_tensors_is_an_empty_slot(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", {}, {"state": "empty"})
    assert read_tensors(tmp_path / "file") == ({}, {"state": "empty"})


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_file_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, place: int) -> None:
    path = tmp_path_factory.mktemp("tensors") / "file"
    write_tensors(path, ARRAYS, NOTE)
    data = path.read_bytes()
    path.write_bytes(data[: place % len(data)])
    refused(ProjectError, lambda: read_tensors(path))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"CANARY",
        headed({}),
        headed(b"\xff"),
        headed({"__metadata__": {}}),
        headed({"__metadata__": {"lmeraser": "CANARY {"}}),
        struct.pack("<Q", 2**50),
    ],
)
def test_broken_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    refused(ProjectError, lambda: read_note(path))
    refused(ProjectError, lambda: read_tensors(path))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert "c00.safetensors is missing" in refused(ProjectError, lambda: read_tensors(tmp_path / "c00.safetensors"))


@pytest.mark.parametrize("header", [[], {"__metadata__": None}], ids=["list", "null metadata"])
def test_file_with_another_header_is_refused(tmp_path: Path, header: object) -> None:
    path = tmp_path / "file"
    path.write_bytes(headed(header))
    refused(ProjectError, lambda: read_note(path))


def test_what_an_older_release_did_not_write_is_told_in_one_line(tmp_path: Path) -> None:
    write_tensors(tmp_path / "head.safetensors", {"weight": np.zeros(2)}, {"labels": ["ant"]})
    arrays, note = read_tensors(tmp_path / "head.safetensors")
    lines = refused(ProjectError, lambda: arrays["bias"]), refused(ProjectError, lambda: note["temperature"])
    for line, name in zip(lines, ("bias", "temperature"), strict=True):
        assert line == f"head.safetensors lacks '{name}': another release made it; run `dvc repro` and retry"
    assert note.get("state") is None
