"""Whole-or-nothing writes. They decide when a file is there, never what is in it."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

DRAFT = ".writing-"  # how the name of a file begins that has not taken its place yet


def sync_folder(folder: Path) -> None:
    """Put a folder's entries on the disk: a file's own fsync keeps its bytes, not its name."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot sync a folder
            raise
    finally:
        os.close(handle)


def _make_folder(folder: Path) -> None:
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_folder(made.parent)


def is_draft(path: Path) -> bool:
    """Whether a path is that of a file or folder that has not taken its place, or lies in such a folder. Args: path: relative."""
    return any(name.startswith(DRAFT) for name in path.parts)


def discard(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def take_place(draft: Path, path: Path) -> None:
    """Let a draft take the place of what is there; either may be a file or a folder.

    A reader finds the old one or the new one; where one of them is a folder, a kill in between leaves none. Never a mixture.
    """
    aside = path.with_name(f"{DRAFT}old-{path.name}")  # no folder takes the place of one that holds anything
    discard(aside)
    if not (draft.is_dir() or path.is_dir()):
        draft.replace(path)
        return
    if path.exists():
        path.rename(aside)
    draft.rename(path)
    discard(aside)


def write_atomically(path: Path, write: Callable[[Path], None] | bytes, mode: int = 0o644) -> None:
    """Write a file so that a reader finds the old one or the new one, never a half (also after a kill, a full disk or a power
    cut: when this returns, bytes and name are on the disk).

    Args:
        write: the bytes, or a function that writes them to the path that it is given.
    """
    _make_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=DRAFT)
    os.close(handle)
    draft = Path(name)
    try:
        if isinstance(write, bytes):
            draft.write_bytes(write)
        else:
            write(draft)
        draft.chmod(mode)
        with draft.open("rb+") as stream:
            os.fsync(stream.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)
