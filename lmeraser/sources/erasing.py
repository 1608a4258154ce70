"""Deleting from a manifest source: what must hold before, which names of an image go, and a table in the place of another.

A table keeps its mode, owner, attributes and every byte of the rows that stay; a link keeps leading to it. An image goes by every
name in the source that leads to it, unless a row that stays needs one of them.
"""

import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from lmeraser.core.errors import ManifestError, StepFailedError
from lmeraser.core.files import write_atomically

ADVICE = "mend that, or set source.erase to false and clear the source yourself"
MAX_LINKS = 40  # hops, as Linux follows


def check_manifest(manifest: Path, name: str) -> None:
    """Raise ManifestError unless a table (links followed) can be replaced by one of the same owner, and by nothing else."""
    status = manifest.stat()
    if status.st_nlink > 1:
        problem = f"{name} has {status.st_nlink} names (hard links), and the rows would stay under the others"
    elif os.geteuid() not in (0, status.st_uid):
        problem = f"{name} belongs to another user, and would not any more"
    elif not os.access(manifest, os.W_OK) or not os.access(manifest.parent, os.W_OK | os.X_OK):
        problem = f"{name} or its folder cannot be written"
    else:
        return
    raise ManifestError(f"source.erase is true, but {problem}; {ADVICE}")


def check_images(root: Path, paths: Sequence[str]) -> None:
    """Raise ManifestError unless every image can be deleted, and would be gone then. An image that is missing is no matter."""
    names: dict[tuple[int, int], tuple[int, set[Path]]] = {}  # of a file with several: how many, and those in the table
    folders: set[Path] = set()
    for entry in _chains(root, paths):
        try:
            status = os.lstat(entry)
        except (OSError, ValueError):
            continue  # `split` says what is wrong with it
        folders.add(entry.parent)
        if status.st_nlink > 1:
            names.setdefault((status.st_dev, status.st_ino), (status.st_nlink, set()))[1].add(entry)
    closed = sum(not os.access(folder, os.W_OK | os.X_OK) for folder in folders)
    if closed:
        raise ManifestError(f"source.erase is true, but {closed} folders of images cannot be written; {ADVICE}")
    shared = sum(count > len(known) for count, known in names.values())
    if shared:
        raise ManifestError(
            f"source.erase is true, but {shared} images have other names (hard links) that the manifest does not know, and would "
            f"stay under those; {ADVICE}"
        )


def entries(root: Path, paths: Sequence[str]) -> set[Path]:
    """Every name in the folder that leads from the paths to their images: the name itself and, if it is a link, what it names,
    and so on."""
    return set(_chains(root, paths))


def _chains(root: Path, paths: Sequence[str]) -> Iterator[Path]:
    parents: dict[Path, Path] = {}
    for path in paths:
        entry = root / path
        for _ in range(MAX_LINKS):
            try:
                parent = parents.get(entry.parent) or parents.setdefault(entry.parent, entry.parent.resolve())
                entry = parent / entry.name
                if not parent.is_relative_to(root):
                    break
                yield entry
                entry = parent / os.readlink(entry)  # noqa: PTH115  (a million of them)
            except (OSError, RuntimeError, ValueError):  # no link: the image itself, or no name of a file
                break


def delete(files: Collection[Path], root: Path) -> None:
    """Delete files, and the links below the root that lead to none any more. Raises: StepFailedError, with a count alone."""
    failed = 0
    for file in files:
        try:
            file.unlink(missing_ok=True)
        except OSError:
            failed += 1
    if failed:
        raise StepFailedError(f"source: {failed} image files could not be deleted; check their permissions and retry")
    deleted = set(files)
    while dangling := {link for link in _dangling(root) if _leads_to(link) in deleted}:
        for link in dangling:  # DVC refuses to hash a folder with a link that leads nowhere
            link.unlink()
        deleted |= dangling


def _dangling(root: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(root):
        links = (Path(place, name) for name in (*folders, *files))
        yield from (link for link in links if link.is_symlink() and not link.exists())


def _leads_to(link: Path) -> Path:
    named = link.parent / link.readlink()
    return named.parent.resolve() / named.name


def state(manifest: Path) -> tuple[int, int, int]:
    """What changes when somebody else writes the table."""
    status = manifest.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def rewrite(manifest: Path, write: Callable[[Path], object], before: tuple[int, int, int]) -> None:
    """Put a table in the place of another, with its mode, owner and attributes.

    Args: before: the table's `state` when it was read. Raises: StepFailedError.
    """
    old = manifest.stat()

    def draft_of(draft: Path) -> None:
        write(draft)
        shutil.copystat(manifest, draft)  # also access lists and attributes
        os.utime(draft)
        made = draft.stat()
        if (made.st_uid, made.st_gid) != (old.st_uid, old.st_gid):
            os.chown(draft, old.st_uid, old.st_gid)
        if state(manifest) != before:
            raise StepFailedError("source: somebody else changed the manifest meanwhile; retry when nobody writes to it")

    try:
        write_atomically(manifest, draft_of, mode=stat.S_IMODE(old.st_mode))
    except (PermissionError, pa.ArrowException) as error:
        raise StepFailedError(
            f"source: the manifest could not be written ({type(error).__name__}); check its folder's permissions and retry"
        ) from error
