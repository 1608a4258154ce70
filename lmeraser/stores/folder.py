"""A store in a folder of this machine (or of a mounted disk)."""

import io
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lmeraser.core.files import write_atomically
from lmeraser.stores.base import Entry, undeletable, unreachable, unreadable

YOUNG = 1.0  # s; a file that changed less before it was listed may change again, and its times would not


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

    @property
    def place(self) -> str:
        return os.path.realpath(self.root)

    def entries(self) -> Iterator[Entry]:
        """Everything that lies here, one by one: what cannot be looked at is an entry too, and no error."""
        if not self.root.is_dir():
            if self.must_exist:
                raise unreachable(self.name, "its folder is missing; if nothing was ever pushed there, make an empty one")
            return
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            try:
                children = self.children(prefix)
            except (FileNotFoundError, NotADirectoryError):
                continue  # gone since it was listed
            except OSError as error:
                yield Entry(prefix, kind="closed", reason=error.strerror or "it cannot be listed")
                continue
            for child in children:
                if f"{prefix}{child.name}" in self.skip:
                    continue
                entry = self._entry(f"{prefix}{child.name}", child)
                if entry is not None:
                    yield entry
                    if entry.kind == "folder":
                        waiting.append(f"{entry.key}/")

    def children(self, prefix: str) -> "list[os.DirEntry[str]]":
        """What lies in a folder of the store, by name. Args: prefix: its key with a final `/`, empty for the store itself."""
        return sorted(os.scandir(self.root / prefix), key=lambda child: child.name)

    @staticmethod
    def _entry(key: str, child: "os.DirEntry[str]") -> Entry | None:
        """None if it is gone since it was listed."""
        try:
            if child.is_dir(follow_symlinks=False):
                return Entry(key, kind="folder")
            facts = child.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            return Entry(key, kind="closed", reason=error.strerror or "it cannot be looked at")
        if stat.S_ISLNK(facts.st_mode):
            return Entry(key, facts.st_size, "link")
        if not stat.S_ISREG(facts.st_mode):  # sockets, pipes and devices keep nothing, and reading them may wait for ever
            return Entry(key, facts.st_size, "special")
        # Nobody sets the time of a file's change (ctime) as they like, as they can that of its content.
        young = facts.st_ctime > time.time() - YOUNG
        stamp = "" if young else f"{facts.st_ino} {facts.st_mtime_ns} {facts.st_ctime_ns}"
        return Entry(key, facts.st_size, "file", stamp=stamp)

    def list(self) -> Iterator[tuple[str, int]]:
        for entry in self.entries():
            if entry.kind == "closed":
                raise unreachable(self.name, entry.reason)
            if entry.kind in ("file", "link"):
                yield entry.key, entry.size

    def open(self, key: str) -> BinaryIO:
        path = self.root / key
        try:
            if path.is_symlink():  # what a link holds is a name; what it points at lies in a store of its own, or elsewhere
                return io.BytesIO(os.fsencode(path.readlink()))
            # A pipe may have taken the file's place: not to wait for who writes into it.
            stream = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unreadable(self.name, error.strerror or "no reason given") from error
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            stream.close()
            raise FileNotFoundError(key)
        return stream

    def read(self, keys: Iterable[str]) -> dict[str, bytes]:
        contents = {}
        for key in keys:
            try:
                with self.open(key) as stream:
                    contents[key] = stream.read()
            except FileNotFoundError:
                continue
        return contents

    def write(self, key: str, content: bytes) -> None:
        if self.must_exist and not self.root.is_dir():
            raise unreachable(self.name, "its folder is missing")
        try:
            (self.root / key).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.root / key, content)
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
