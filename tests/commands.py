"""The commands that the documents show: lines of fenced blocks, without comments and answers."""

import re
from collections.abc import Iterator
from pathlib import Path

FENCE = re.compile(r"^```\n(.*?)^```$", re.DOTALL | re.MULTILINE)  # a block of a named language shows a file


def blocks(document: Path) -> list[list[str]]:
    """The commands of each block, in order; a line that ends in a backslash goes on in the next."""
    found = []
    for block in FENCE.findall(document.read_text(encoding="utf-8")):
        lines = [re.sub(r"(^|\s+)#.*", "", line).strip() for line in block.replace("\\\n", " ").splitlines()]
        found.append([line for line in lines if line])
    return found


def section(document: Path, title: str) -> list[str]:
    """The commands of the first block below a title."""
    text = document.read_text(encoding="utf-8")
    first = FENCE.search(text, text.index(f"\n## {title}\n"))
    assert first, title
    return next(block for block in blocks(document) if block and block[0] in first[0])


def calls(line: str) -> Iterator[list[str]]:
    """The arguments of every `lmeraser` in a line."""
    for part in re.split(r";|&&|\|", line):
        words = part.split()
        if words[:1] == ["lmeraser"]:
            yield words[1:]
