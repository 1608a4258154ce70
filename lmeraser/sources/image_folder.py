"""A plain folder of images as it lies on a disk: which of its files are images, which are not, and why.

Links are never followed, so nothing outside of the folder is read. What is left out is counted by reason; names stay here.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lmeraser.core.digest import sha256
from lmeraser.core.errors import BadInputError, ImageError
from lmeraser.core.progress import track
from lmeraser.data.images import looks_like_image, open_checked

HIDDEN = ("Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir", "$RECYCLE.BIN")  # of systems and tools, beside names with a dot
HEAD = 32  # bytes that tell a kind
# What people take for images too, by how it begins: at offset 0, or behind the length of ISO's `ftyp` box.
KINDS = ((b"GIF8", "GIF"), (b"BM", "BMP"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"\0\0\x01\0", "ICO"), (b"%PDF", "PDF"))
BRANDS = ((b"avif", "AVIF"), (b"avis", "AVIF"), (b"heic", "HEIC"), (b"heix", "HEIC"), (b"heim", "HEIC"), (b"mif1", "HEIC"))
AHEAD = 256  # files a thread pool is given at once: what waits is kept in memory

LINK, HIDDEN_FILE, ODD_NAME, SPECIAL = "links", "hidden files", "names that cannot be kept", "no files (pipes, sockets)"
CLOSED, EMPTY, BROKEN, NO_IMAGE = "cannot be opened", "empty", "broken images", "no images"


@dataclass(frozen=True)
class Image:
    """Attributes: path: below the folder, with `/`; sha256: of the file's bytes."""

    path: str
    sha256: str


@dataclass
class ImageFolder:
    """Attributes: images: sorted by path; left_out: (path, reason), sorted too; paths are as Python keeps them in names."""

    images: list[Image]
    left_out: list[tuple[str, str]]


def look(folder: Path, max_pixels: int, passed_over: Sequence[Path] = (), workers: int = 1) -> ImageFolder:
    """Find and decode every image below a folder.

    Args:
        max_pixels: larger images are refused, as a build refuses them.
        passed_over: files that are nobody's images, such as an earlier manifest.
        workers: threads that read and decode.
    Raises: BadInputError if the folder is none, or it or a folder below it cannot be listed.
    """
    if not folder.is_dir():
        raise BadInputError("FOLDER is not there, or is no folder; give the folder that holds the folders of images")
    left_out: list[tuple[str, str]] = []
    paths = sorted(_files(folder, {path.resolve() for path in passed_over}, left_out))
    images = []
    with ThreadPoolExecutor(workers) as pool:
        chunks = (paths[start : start + AHEAD] for start in range(0, len(paths), AHEAD))
        looked = (pair for chunk in chunks for pair in pool.map(lambda path: _look_at(folder, path, max_pixels), chunk))
        for path, (digest, reason) in zip(paths, track(looked, len(paths), "manifest", "file"), strict=True):
            if reason:
                left_out.append((path, reason))
            else:
                images.append(Image(path, digest))
    return ImageFolder(images, sorted(left_out))


def _files(folder: Path, passed_over: set[Path], left_out: list[tuple[str, str]]) -> Iterator[str]:
    """Paths of plain files; everything else joins what is left out."""
    for place, folders, names in os.walk(folder, onerror=_unlistable):
        relative = os.path.relpath(place, folder)
        prefix = "" if relative == "." else f"{relative}/"
        inner = []
        for name in folders:
            reason = _refused(name, os.path.islink(f"{place}/{name}"))  # noqa: PTH114  (hundreds of thousands of them)
            if reason:
                left_out.append((f"{prefix}{name}/", reason))
            else:
                inner.append(name)
        folders[:] = inner
        for name in names:
            full = f"{place}/{name}"
            link = os.path.islink(full)  # noqa: PTH114
            reason = _refused(name, link) or ("" if os.path.isfile(full) else SPECIAL)  # noqa: PTH113
            if Path(full) in passed_over:
                continue
            if reason:
                left_out.append((f"{prefix}{name}", reason))
            else:
                yield f"{prefix}{name}"


def _unlistable(error: OSError) -> None:
    raise BadInputError(f"FOLDER or a folder in it cannot be listed ({error.strerror}); open it (`chmod u+rx`) and retry")


def _refused(name: str, link: bool) -> str:
    """Why a name is left out; empty if it is not. A line break or a lone byte would not survive a table of text."""
    if link:
        return LINK
    if name.startswith(".") or name in HIDDEN:
        return HIDDEN_FILE
    return "" if name.isprintable() else ODD_NAME


def _look_at(folder: Path, path: str, max_pixels: int) -> tuple[str, str]:
    """The digest of an image's bytes; or nothing, and why it is none."""
    try:
        with (folder / path).open("rb") as stream:
            head = stream.read(HEAD)
            data = head + stream.read() if looks_like_image(head) else b""
    except OSError:
        return "", CLOSED
    if not data:
        return "", kind_of(head)
    try:
        open_checked(data, max_pixels)
    except ImageError as error:
        return "", "larger than image.max_pixels" if "max_pixels" in str(error) else BROKEN
    return sha256(data), ""


def kind_of(head: bytes) -> str:
    """What a file that is no PNG, JPEG or WebP is, in words, by how it begins."""
    if not head:
        return EMPTY
    for start, kind in KINDS:
        if head.startswith(start):
            return f"{kind} files"
    if head[4:8] == b"ftyp":
        return next((f"{kind} files" for brand, kind in BRANDS if brand in head[8:]), NO_IMAGE)
    return NO_IMAGE
