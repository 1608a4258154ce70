"""Whole-or-nothing writes. They decide when a file is there, never what is in it."""

import errno
import os
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
