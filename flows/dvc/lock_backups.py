"""Copies of the locks from before a batch, kept while it changes them: `.lmeraser/BATCH.locks/dvc.lock`, `.../tune/03/dvc.lock`.

DVC writes a lock in place, so a kill can leave one empty or half, and only some of them written.
"""

import shutil
from collections.abc import Collection

from lmeraser.core.errors import ProjectError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.pipeline.files import locks, locks_there
from lmeraser.pipeline.locks import outs_of


def keep(layout: Layout, batch_id: str) -> None:
    """Copy every lock that has no copy yet: after a kill one is older than what the killed try wrote, and stays.

    A copy that is missing then was never made, or was put back: in both cases the lock is as it was before the batch.
    """
    for lock in locks_there(layout.root):
        copy = layout.lock_copies(batch_id) / lock.relative_to(layout.root)
        if not copy.exists():
            write_atomically(copy, lock.read_bytes(), mode=0o600)


def mend(layout: Layout, batch_id: str) -> None:
    """Take the copy where a lock is missing, empty or half."""
    for lock in locks(layout.root):
        name = lock.relative_to(layout.root)
        copy = layout.lock_copies(batch_id) / name
        try:
            outs_of(lock, name.as_posix())
        except ProjectError:
            if copy.exists():
                write_atomically(lock, copy.read_bytes())


def put_back(layout: Layout, batch_id: str) -> None:
    """Make every lock what it was. A rename needs no space (the disk may be full); the next try copies them again."""
    folder = layout.lock_copies(batch_id)
    for copy in locks_there(folder):
        copy.replace(layout.root / copy.relative_to(folder))
    drop(layout, batch_id)


def drop(layout: Layout, batch_id: str) -> None:
    shutil.rmtree(layout.lock_copies(batch_id), ignore_errors=True)


def drop_finished(layout: Layout, under_way: Collection[str]) -> None:
    """Drop the copies of batches that are not under way any more: a kill came between the last certificate and `drop`."""
    for folder in layout.private_state.glob("*.locks"):
        if folder.stem not in under_way:
            drop(layout, folder.stem)
