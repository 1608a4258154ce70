"""How single images are named on a command line: by a file, by their path in the source, or by their SHA-256. Nobody is named."""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.subjects import read_lines
from lmeraser.core.digest import sha256
from lmeraser.core.errors import BadInputError, ImageError

if TYPE_CHECKING:
    from flows.project import Project
    from lmeraser.sources import Source

DIGEST = re.compile(r"[0-9a-fA-F]{64}")
AS_THE_SOURCE_HAS_IT = "expected a path of the source's table, as it stands there"


def add_images(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--image", nargs="+", action="extend", metavar="FILE", help="an image, whoever's: every record with these bytes")
    add("--path", nargs="+", action="extend", metavar="P", help="an image by its path in the source's table")
    add("--sha256", nargs="+", action="extend", metavar="HEX", help="an image by the SHA-256 of its bytes")
    add("--images-from", metavar="FILE", help="one path or SHA-256 a line; - reads standard input")


def names_images(options: argparse.Namespace) -> bool:
    """Whether the options name an image."""
    return any((options.image, options.path, options.sha256, options.images_from))


def images_of(options: argparse.Namespace, project: "Project") -> list[str]:
    """The digests of the images that the options name, in this order: files, paths, digests, lines; each once.

    Raises: BadInputError, with a position and never a path or a digest.
    """
    digests = list(_of_files(options.image or []))
    table = Table(project)
    for place, path in enumerate(options.path or [], start=1):
        digests.append(table.digest(path, f"--path {place} of {len(options.path)}"))
    for place, text in enumerate(options.sha256 or [], start=1):
        digests.append(plain_digest(text, f"--sha256 {place} of {len(options.sha256)}"))
    lines = read_lines(options.images_from, "--images-from") if options.images_from else []
    for place, text in enumerate(lines, start=1):
        digests.append(digest_of(text, table, f"--images-from: entry {place} of {len(lines)}"))
    return list(dict.fromkeys(digests))


def digest_of(text: str, table: "Table", where: str) -> str:
    """The digest that a line gives, itself or by a path."""
    return text.strip().lower() if DIGEST.fullmatch(text.strip()) else table.digest(text, where)


def plain_digest(text: str, where: str) -> str:
    """A SHA-256 in lower case. Raises: BadInputError if it is none."""
    if not DIGEST.fullmatch(text):
        raise BadInputError(f"{where} is no SHA-256; expected 64 hex digits")
    return text.lower()


def image_digest(name: str, where: str) -> str:
    """The SHA-256 of a file. Raises: BadInputError, without its name."""
    try:
        return sha256(Path(name).read_bytes())
    except (OSError, ValueError) as error:
        raise BadInputError(f"{where} cannot be read ({type(error).__name__}); expected an image file") from error


def _of_files(names: Sequence[str]) -> Iterator[str]:
    for place, name in enumerate(names, start=1):
        yield image_digest(name, f"--image {place} of {len(names)}")


class Table:
    """The paths of the project's source, read when the first is asked for."""

    def __init__(self, project: "Project") -> None:
        self._project = project
        self._source: Source | None = None
        self._paths: frozenset[str] = frozenset()

    def digest(self, path: str, where: str) -> str:
        """The digest of the image at a path. Raises: BadInputError, without the path."""
        from lmeraser.sources import open_source
        from lmeraser.sources.base import normalise_path

        if self._source is None:
            self._source = open_source(self._project.params.source, self._project.layout.root)
            self._paths = frozenset(self._source.table()["path"])
        plain = normalise_path(path)
        if plain not in self._paths:
            raise BadInputError(f"{where} is not in the source's table; {AS_THE_SOURCE_HAS_IT}")
        try:
            return sha256(self._source.image(plain))
        except ImageError as error:
            raise BadInputError(f"{where}: {error}; or give the image by --sha256") from error
