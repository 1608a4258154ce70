"""A store keeps copies under keys: listed, read, deleted from. What goes is decided elsewhere."""

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Protocol

from lmeraser.core.errors import StepFailedError


class Store(Protocol):
    """Attributes: name: for people and certificates: `cache`, `remote backup`. Keys are paths with `/`, below the store."""

    @property
    def name(self) -> str: ...

    def list(self) -> Iterator[tuple[str, int]]:
        """Every key and its size in bytes. Raises: StepFailedError if the store cannot be read."""

    def open(self, key: str) -> BinaryIO:
        """A stream that can seek. Raises: FileNotFoundError if the key is gone, StepFailedError if the store is away."""

    def read(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The whole content of each key that is still there."""

    def write(self, key: str, content: bytes) -> None:
        """Put one whole object under a key. Raises: StepFailedError if the store is away or read-only."""

    def delete(self, keys: Iterable[str]) -> int:
        """Delete every copy under these keys, old versions too; returns how many keys were there.

        Raises: StepFailedError after all others were tried.
        """


def unreachable(name: str, reason: str) -> StepFailedError:
    return StepFailedError(f"{name} cannot be reached ({reason}); the request stays open: `lmeraser resume` when it is back")


def undeletable(name: str, count: int, reason: str) -> StepFailedError:
    return StepFailedError(
        f"{name}: {count} files cannot be deleted ({reason}); make the store writable, then `lmeraser resume`: nothing is lost"
    )
