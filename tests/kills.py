"""Kill a run before its nth write to the disk, as SIGKILL would: nothing is written any more, not even by `finally`.

Every write of Python's own is seen by an audit hook (PEP 578), so no way to write can be forgotten: opening a file to write it,
rename, unlink, rmdir, mkdir, link. Besides: each commit of the ledger that changes something, and the moment in which DVC has
emptied a lock. A kill after a write is the kill before the next one.
"""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_dvc
import sqlalchemy as sa

CHANGES = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"})
GROWS = ("open", "os.mkdir", "os.link", "os.symlink")  # what a full disk refuses
NO_STATE = (".lock", ".busy", "/owner.json")  # files that are held and say nothing; dvc.lock does
CODE = "__pycache__"


class Killed(BaseException):
    """The process is gone. No `except Exception` may see it."""


@dataclass
class Kill:
    """Attributes: at: the write that does not happen any more, or place: a pattern of it; none: all do. full: the process lives
    on, and the disk has no space from there on. writes: seen so far; dead: whether it was killed, where: before which write."""

    root: str
    at: int | None
    place: str | None = None
    full: bool = False
    writes: int = 0
    dead: bool = False
    where: str = ""

    def point(self, where: str) -> None:
        if not self.dead:
            self.writes += 1
            self.dead = self.writes == self.at or (self.place is not None and bool(re.fullmatch(self.place, where)))
            self.where = where if self.dead else ""
        if self.dead and not self.full:
            raise Killed
        if self.dead and where.startswith(GROWS):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


_under_way: list[Kill] = []
_installed: list[bool] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _under_way:
        return
    if event == "open":
        path, _, flags = arguments
        if not (isinstance(flags, int) and flags & (os.O_CREAT | os.O_TRUNC)) or isinstance(path, int):
            return
    elif event not in CHANGES:
        return
    name = os.fsdecode(arguments[0])
    if _changes_nothing(event, name, arguments[-1]):
        return
    within = name.startswith(_under_way[-1].root) or not name.startswith("/")  # relative: below an open folder
    if within and CODE not in name and (not name.endswith(NO_STATE) or name.endswith("dvc.lock")):
        _under_way[-1].point(f"{event} {name.removeprefix(_under_way[-1].root)}")


def _changes_nothing(event: str, name: str, folder: int) -> bool:
    """Whether a folder is there already or holds something, or a file is gone. Args: folder: a handle, if the name is in it."""
    if event == "os.mkdir":
        return os.path.lexists(name)
    if event == "os.rmdir" and folder < 0:
        return not os.path.isdir(name) or bool(os.listdir(name))  # noqa: PTH112, PTH208  (a hook makes no Path)
    return event == "os.remove" and folder < 0 and not os.path.lexists(name)


def _committing(connection: sa.Connection) -> None:
    if _under_way and connection.info.pop("changed", False):
        _under_way[-1].point("commit of the ledger")


def _executed(connection: sa.Connection, cursor: Any, statement: str, *_: Any) -> None:
    if statement.lstrip()[:6].upper() in ("INSERT", "UPDATE", "DELETE"):
        connection.info["changed"] = True


def _install() -> None:
    if not _installed:
        _installed.append(True)
        sys.addaudithook(_audit)  # for as long as the process lives; does nothing while nobody is to be killed
        sa.event.listen(sa.engine.Engine, "commit", _committing)
        sa.event.listen(sa.engine.Engine, "after_cursor_execute", _executed)


@contextmanager
def killing(root: Path, at: int | None = None, place: str | None = None, full: bool = False) -> Iterator[Kill]:
    """Kill what runs in the block before its write number `at` (from 1), or before the first of a place: `os.remove /a/.*`.

    The test goes on behind the block, killed or not. Args: root: the project and its remote; other files do not count; full: the
    disk is full from that write on, and nobody is killed.
    """
    _install()
    kill, emptied = Kill(str(root), at, place, full), fake_dvc.emptied
    fake_dvc.emptied = lambda path: kill.point(f"emptied {path.name}")
    _under_way.append(kill)
    try:
        yield kill
    except Killed:
        pass
    finally:
        _under_way.pop()
        fake_dvc.emptied = emptied
