"""Files with people's images or names, and the folders above them, are closed to other users of the machine, whatever the umask.

DVC gives its copies modes of its own (0444 in the cache, the umask's in the workspace). So the folders above them are closed, and
every stage closes what DVC opened after the one before.
"""

import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lmeraser.core.layout import Layout

SHARED = re.compile(r"^\s*shared\s*=\s*[\"']?group", re.MULTILINE | re.IGNORECASE)


def close_private(layout: Layout) -> None:
    """Make the project's private folders, mode 0700, and close the tables in them, mode 0600.

    A cache that DVC's config shares with a group, and one behind a link, is its owner's to close.
    """
    folders = [layout.artifacts, layout.private_state]
    dvc = layout.root / ".dvc"
    if dvc.is_dir():
        folders += [dvc / "tmp", *([] if _is_shared(dvc) else [dvc / "cache"])]
    for folder in folders:
        if folder.is_symlink():
            continue
        folder.mkdir(exist_ok=True, mode=0o700)
        mode = folder.stat().st_mode & 0o7777
        if mode & 0o077:
            with suppress(PermissionError):  # another user's
                folder.chmod(mode & ~0o077)
    for table in _tables(layout):
        with suppress(PermissionError, FileNotFoundError):
            status = table.lstat()
            # Several names: DVC's cache has the file too (`cache.type = hardlink`), and its mode is DVC's.
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_mode & 0o077:
                table.chmod(0o600)


def _tables(layout: Layout) -> Iterator[Path]:
    """What holds images, names, or ids of people's records."""
    if layout.public.exists():
        yield layout.public
    yield from layout.private.glob("*.parquet")
    yield from layout.private.glob("*.parquet/*.parquet")  # where parts have shards
    yield from (layout.artifacts / "embed").glob("*/leaves.parquet")
    yield from (layout.clusters / "members").glob("*.parquet")


def _is_shared(dvc: Path) -> bool:
    files = (dvc / name for name in ("config", "config.local"))
    return any(SHARED.search(file.read_text(encoding="utf-8", errors="replace")) for file in files if file.is_file())
