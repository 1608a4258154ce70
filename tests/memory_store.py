"""A store without a disk."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from lmeraser.stores.base import Entry


@dataclass
class MemoryStore:
    """A store in a dictionary; `test_store_conformance.py` keeps it true to the real ones."""

    files: dict[str, bytes] = field(default_factory=dict)
    name: str = "memory"

    def list(self) -> Iterator[tuple[str, int]]:
        yield from [(key, len(content)) for key, content in self.files.items()]

    def entries(self) -> Iterator[Entry]:
        for key, content in self.files.items():
            yield Entry(key, len(content), stamp=hashlib.sha256(content).hexdigest())

    def open(self, key: str) -> BinaryIO:
        if key not in self.files:
            raise FileNotFoundError
        return io.BytesIO(self.files[key])

    def read(self, keys: Iterable[str]) -> dict[str, bytes]:
        return {key: self.files[key] for key in keys if key in self.files}

    def write(self, key: str, content: bytes) -> None:
        self.files[key] = content

    def delete(self, keys: Iterable[str]) -> int:
        return sum(self.files.pop(key, None) is not None for key in keys)
