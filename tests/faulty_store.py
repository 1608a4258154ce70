"""A store that fails where a test says: the nth call fails, is lost, or is done twice (as kopia's faulty storage does)."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, TypeVar

from lmeraser.core.errors import StepFailedError
from lmeraser.stores.base import Store, undeletable, unreachable

T = TypeVar("T")
Call = Literal["list", "open", "read", "write", "delete"]
How = Literal["fail", "unheard", "lose", "repeat", "kill"]


class Killed(BaseException):
    """The process ends here: nothing catches it, and nothing after it is done."""


@dataclass(frozen=True)
class Fault:
    """What happens to one call. Attributes: nth: of the calls of this name, from 0.

    how: `fail`: it does nothing and raises; `unheard`: it is done, then raises; `lose`: it does nothing, and says that it was
    done; `repeat`: it is done twice; `kill`: the process ends before it.
    """

    call: Call
    nth: int
    how: How


@dataclass
class FaultyStore:
    """A delete counts once for each key: what real stores do in one call can end between any two of them.

    Attributes: calls: how often each was made, those that failed too; deleted: the keys that were to be deleted, in their order;
    failed: of those the ones that failed.
    """

    inner: Store
    faults: Sequence[Fault] = ()
    calls: Counter[str] = field(default_factory=Counter)
    deleted: Sequence[str] = ()
    failed: Sequence[str] = ()

    @property
    def name(self) -> str:
        return self.inner.name

    def _do(self, call: Call, act: Callable[[], T], lost: Callable[[], T]) -> T:
        """Args: act: the call; lost: what is answered where it is lost."""
        hows = {fault.how for fault in self.faults if (fault.call, fault.nth) == (call, self.calls[call])}
        self.calls[call] += 1
        if "kill" in hows:
            raise Killed
        if "fail" in hows:
            raise unreachable(self.name, "a fault of the test")
        if "lose" in hows:
            return lost()
        answer = act()
        if "unheard" in hows:
            raise unreachable(self.name, "a fault of the test")
        return act() if "repeat" in hows else answer

    def list(self) -> Iterator[tuple[str, int]]:
        def all_keys() -> Sequence[tuple[str, int]]:
            return tuple(self.inner.list())

        def no_key() -> Sequence[tuple[str, int]]:
            return ()

        yield from self._do("list", all_keys, no_key)

    def open(self, key: str) -> BinaryIO:
        def absent() -> BinaryIO:
            raise FileNotFoundError(key)

        return self._do("open", lambda: self.inner.open(key), absent)

    def read(self, keys: Iterable[str]) -> dict[str, bytes]:
        wanted = tuple(keys)
        return self._do("read", lambda: self.inner.read(wanted), dict)

    def write(self, key: str, content: bytes) -> None:
        self._do("write", lambda: self.inner.write(key, content), lambda: None)

    def delete(self, keys: Iterable[str]) -> int:
        """As the protocol says: what fails is told after all others were tried."""
        deleted, before = 0, len(self.failed)
        for key in keys:
            self.deleted = (*self.deleted, key)
            try:
                deleted += self._do("delete", lambda: self.inner.delete((key,)), lambda: 1)  # noqa: B023 (called at once)
            except StepFailedError:
                self.failed = (*self.failed, key)
        if failed := len(self.failed) - before:
            raise undeletable(self.name, failed, "a fault of the test")
        return deleted
