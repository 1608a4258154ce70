"""What the documents tell people to type is what the command takes."""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import ROOT
from commands import blocks, calls

from flows.cli.command_line import make_parser
from lmeraser.core.errors import BadInputError

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
INLINE = re.compile(r"`(lmeraser [a-z][^`\n]*)`")
PLACEHOLDERS = {"N": "64", "K": "39", "UUID": "5eed0000-0000-4000-8000-000000000001", "…": "more"}


def arguments(words: str) -> list[str]:
    """Of a command as it is printed: with values for placeholders, and without the brackets of what may be left out."""
    plain = shlex.split(re.sub(r"[\[\]]", " ", words))
    return [PLACEHOLDERS.get(word, word) for word in plain]


def in_blocks(document: Path) -> list[str]:
    return [" ".join(words) for block in blocks(document) for line in block.lines for words in calls(line)]


def in_text(document: Path) -> list[str]:
    """What stands between backticks; it may be cut short."""
    return [command.removeprefix("lmeraser ") for command in INLINE.findall(document.read_text(encoding="utf-8"))]


def cases(of: Callable[[Path], list[str]]) -> list[Any]:
    return [
        pytest.param(command, id=f"{document.name}: {command}") for document in DOCUMENTS for command in sorted(set(of(document)))
    ]


def test_documents_show_commands() -> None:
    assert len(cases(in_blocks)) > 15
    assert len(cases(in_text)) > 30


@pytest.mark.parametrize("command", cases(in_blocks))
def test_command_to_be_typed_is_one_that_the_parser_takes(command: str) -> None:
    make_parser().parse_args(arguments(command))


@pytest.mark.parametrize("command", cases(in_text))
def test_command_that_a_text_mentions_exists_with_its_options(command: str) -> None:
    given = [word for word in arguments(command) if word != "more"]
    try:
        make_parser().parse_args(given)
        problem = "cut short"
    except BadInputError as error:
        problem = str(error)
    assert re.search(r"cut short|are required|expected (one|at least one) argument", problem), problem


def test_no_file_of_the_repository_names_a_person_of_the_default_data() -> None:
    """Whoever tries an erasure in a clone would have it found there by the scan, and never be certified."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name and name != "data/digits.csv"]
    named = [str(path.relative_to(ROOT)) for path in files if re.search(rb"(?i)writer[-_]?[0-9]{3}(?![0-9])", path.read_bytes())]
    assert named == []
    assert len(files) > 200
