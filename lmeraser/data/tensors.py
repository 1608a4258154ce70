"""safetensors files with one JSON note: read and written without torch, never pickled."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from lmeraser.core.digest import canonical_json
from lmeraser.core.errors import ProjectError
from lmeraser.core.files import write_atomically

NOTE = "lmeraser"  # one metadata key: several would be written in no fixed order
MAX_HEADER = 100_000_000  # bytes, the format's own limit


def write_tensors(path: Path, tensors: dict[str, NDArray[Any]], note: dict[str, Any]) -> None:
    """Write arrays and a note; equal content gives equal bytes."""
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    write_atomically(path, save(arrays, metadata={NOTE: canonical_json(note).decode().strip()}))


def read_note(path: Path) -> dict[str, Any]:
    """The note alone, from the file's header (https://github.com/huggingface/safetensors#format)."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > MAX_HEADER:
                raise ValueError("header too long")
            header = json.loads(stream.read(length))
        note: dict[str, Any] = json.loads(header["__metadata__"][NOTE])
    except FileNotFoundError as error:
        raise ProjectError(f"{path.name} is missing; run `dvc repro` (or `dvc checkout`) and retry") from error
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise ProjectError(
            f"{path.name} is not a complete safetensors file of this project; run `dvc checkout` and retry"
        ) from error
    return note


class _Content(dict[str, Any]):
    """What a file holds, by name; what it lacks is told: an older release wrote less."""

    def __init__(self, content: dict[str, Any], path: Path) -> None:
        super().__init__(content)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise ProjectError(f"{self.path.name} lacks {name!r}: another release made it; run `dvc repro` and retry")


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and note, either of which raises ProjectError for a name that it lacks.

    Raises: ProjectError if the file is absent or broken.
    """
    note = read_note(path)
    try:
        return _Content(load_file(path), path), _Content(note, path)
    except SafetensorError as error:
        raise ProjectError(f"{path.name} is not a complete safetensors file; run `dvc checkout` and retry") from error
