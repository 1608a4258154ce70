"""How people are named on a command line: with --subject, or one a line in a file, which no shell's history keeps."""

import argparse
import codecs
import re
import sys
from pathlib import Path

from lmeraser.core.errors import BadInputError


def add_subjects(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--subject", nargs="+", action="extend", metavar="S", help="a person, as the manifest names them")
    parser.add_argument("--subjects-from", metavar="FILE", help="one subject a line; - reads standard input")
    parser.add_argument("--include-public", action="store_true", help="accept a rebuild if they have public records")


def subjects_of(options: argparse.Namespace) -> list[str]:
    """Subjects of the command line, then those of --subjects-from."""
    subjects = list(options.subject or [])
    if options.subjects_from:
        subjects += read_lines(options.subjects_from, "--subjects-from")
    return subjects


def read_lines(name: str, option: str) -> list[str]:
    """The lines of a file, or of standard input, that hold something; UTF-8, or UTF-16 with its byte-order mark."""
    text = text_of(read_bytes(name, option, "one a line, UTF-8"), option)
    # Not `splitlines`, which would make two people of one whose name holds a rarer separator.
    return [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]


def text_of(data: bytes, option: str) -> str:
    """UTF-8, or UTF-16 with its byte-order mark. Raises: BadInputError."""
    try:
        return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"the file of {option} is not text in UTF-8 or UTF-16; save it as UTF-8, one a line, and retry"
        ) from error


def read_bytes(name: str, option: str, expected: str) -> bytes:
    """A file that an option names, or standard input for `-`. Raises: BadInputError without the file's name."""
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise BadInputError(f"the file of {option} cannot be read ({type(error).__name__}); expected {expected}") from error
