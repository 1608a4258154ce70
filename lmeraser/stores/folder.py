"""A store in a folder of this machine (or of a mounted disk)."""

import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lmeraser.core.digest import write_whole
from lmeraser.stores.base import undeletable, unreachable


@dataclass(frozen=True)
class FolderStore:
    """Attributes:
    must_exist: a missing folder is an error (a disk that is not mounted), not an empty store.
    skip: folders and files below it that are none of its business, as relative paths.
    """

    name: str
    root: Path
    must_exist: bool = False
    skip: frozenset[str] = frozenset()

    def list(self) -> Iterator[tuple[str, int]]:
        if not self.root.is_dir():
            if self.must_exist:
                raise unreachable(self.name, "its folder is missing; if nothing was ever pushed there, make an empty one")
            return
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            try:
                entries = sorted(os.scandir(self.root / prefix), key=lambda entry: entry.name)
            except FileNotFoundError:
                continue  # gone since it was listed
            except OSError as error:
                raise unreachable(self.name, error.strerror or "it cannot be listed") from error
            for entry in entries:
                if f"{prefix}{entry.name}" in self.skip:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{prefix}{entry.name}/")
                    continue
                with suppress(FileNotFoundError):
                    facts = entry.stat(follow_symlinks=False)
                    # A link's target is not here; sockets, pipes and devices keep nothing, and reading them may wait for ever.
                    if stat.S_ISREG(facts.st_mode) or stat.S_ISLNK(facts.st_mode):
                        yield f"{prefix}{entry.name}", facts.st_size

    def open(self, key: str) -> BinaryIO:
        path = self.root / key
        try:
            if path.is_symlink():  # what a link holds is a name; what it points at lies in a store of its own, or elsewhere
                return io.BytesIO(os.fsencode(path.readlink()))
            return path.open("rb")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unreachable(self.name, error.strerror or "a file cannot be read") from error

    def read(self, keys: Iterable[str]) -> dict[str, bytes]:
        found = {}
        for key in keys:
            try:
                with self.open(key) as stream:
                    found[key] = stream.read()
            except FileNotFoundError:
                continue
        return found

    def write(self, key: str, content: bytes) -> None:
        if self.must_exist and not self.root.is_dir():
            raise unreachable(self.name, "its folder is missing")
        try:
            (self.root / key).parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.root / key, content)
        except OSError as error:
            raise unreachable(self.name, error.strerror or "a file cannot be written") from error

    def delete(self, keys: Iterable[str]) -> int:
        deleted, failed, reason = 0, 0, ""
        for key in keys:
            path = self.root / key
            try:
                path.unlink()
                deleted += 1
            except FileNotFoundError:
                continue
            except OSError as error:
                failed, reason = failed + 1, error.strerror or "no reason given"
                continue
            self._drop_empty(path.parent)
        if failed:
            raise undeletable(self.name, failed, reason)
        return deleted

    def _drop_empty(self, folder: Path) -> None:
        """Remove folders that hold nothing any more; a folder's name can be a digest too."""
        while folder != self.root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent
