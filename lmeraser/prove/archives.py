"""What lies in a compressed file, as far as the standard library unpacks it: gzip, bzip2, xz and zip (also .npz, .docx, .whl).

One level deep, and no more than LIMIT bytes a file: a bomb must not stop the scan. What stays closed is told.
"""

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

LIMIT = 1 << 30  # bytes of one file, unpacked
STREAMS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
ZIP = b"PK\x03\x04"
CLOSED = (
    b"\x28\xb5\x2f\xfd",
    b"7z\xbc\xaf\x27\x1c",
    b"\x04\x22\x4d\x18",
    b"Rar!",
    b"%PDF",
    b"\x1f\x9d",
)  # zstd, 7z, lz4, rar, PDF, compress


class ClosedError(Exception):
    """It cannot be unpacked, or not whole."""


class Bounded:
    """Reads at most LIMIT bytes of an unpacked stream, of which more cannot be told beforehand. Raises: ClosedError."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = LIMIT

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ClosedError
        return data


def is_packed(head: bytes) -> bool:
    return head.startswith((*STREAMS, ZIP, *CLOSED))


def unpacked(head: bytes, stream: BinaryIO) -> Iterator[tuple[str, Bounded]]:
    """Name (of a zip's member, else empty) and content of what a packed file holds. Raises: ClosedError, in the middle too."""
    stream.seek(0)
    try:
        for magic, opened in STREAMS.items():
            if head.startswith(magic):
                yield "", Bounded(cast("BinaryIO", opened(stream, "rb")))
                return
        if not head.startswith(ZIP):
            raise ClosedError
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > LIMIT:
                raise ClosedError
            for member in members:
                with archive.open(member) as inner:
                    yield member.filename, Bounded(cast("BinaryIO", inner))
    except ClosedError:
        raise
    except Exception as error:  # whatever these libraries say of a damaged or locked file
        raise ClosedError from error
