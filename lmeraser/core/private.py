"""Folders that hold people's images or names are closed to other users of the machine, whatever the umask.

DVC gives its copies modes of its own (0444 in the cache, the umask's in the workspace), so the folders above them are closed.
"""

import re
from contextlib import suppress
from pathlib import Path

from lmeraser.core.layout import Layout

SHARED = re.compile(r"^\s*shared\s*=\s*[\"']?group", re.MULTILINE | re.IGNORECASE)


def close_folders(layout: Layout) -> None:
    """Make the project's private folders, mode 0700. A cache that DVC's config shares with a group, and one behind a link, is its
    owner's to close."""
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


def _is_shared(dvc: Path) -> bool:
    files = (dvc / name for name in ("config", "config.local"))
    return any(SHARED.search(file.read_text(encoding="utf-8", errors="replace")) for file in files if file.is_file())
