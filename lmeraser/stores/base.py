"""A store keeps copies under keys: listed, read, deleted from. What goes is decided elsewhere."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, Protocol

from lmeraser.core.errors import StepFailedError


@dataclass(frozen=True)
class Entry:
    """One thing that lies in a store.

    Attributes: size: bytes; kind: `special` keeps nothing (socket, pipe, device), `closed` cannot be looked at, for a reason.
    stamp: what changes whenever the content does; empty where the store cannot tell.
    """

    key: str
    size: int = 0
    kind: Literal["file", "link", "folder", "special", "closed"] = "file"
    reason: str = ""
    stamp: str = ""


class UnreadableError(StepFailedError):
    """One file of a store cannot be read, though the store itself is there."""


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


def entries_of(store: Store) -> list[Entry]:
    """What lies in a store; where it can tell, also what keeps no content. Raises: StepFailedError if the store is away."""
    listing = getattr(store, "entries", None)
    return list(listing()) if listing else [Entry(key, size) for key, size in store.list()]


def place_of(store: Store) -> str:
    """Which store it is, whatever its name: a folder's path, a bucket's URL."""
    return str(getattr(store, "place", store.name))


def unreachable(name: str, reason: str) -> StepFailedError:
    return StepFailedError(f"{name} cannot be reached ({reason}); the request stays open: `lmeraser resume` when it is back")


def unreadable(name: str, reason: str) -> UnreadableError:
    return UnreadableError(f"{name}: a file or folder cannot be read ({reason}); mend its permissions, then `lmeraser resume`")


def undeletable(name: str, count: int, reason: str) -> StepFailedError:
    return StepFailedError(
        f"{name}: {count} files cannot be deleted ({reason}); make the store writable, then `lmeraser resume`: nothing is lost"
    )
