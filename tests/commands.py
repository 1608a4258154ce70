"""The commands that the documents show: lines of fenced blocks, without comments and answers."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Block:
    """A fenced block that names no language (one that does shows a file). `title`: of the section; `lines`: without comments."""

    title: str
    lines: list[str] = field(default_factory=list)


def blocks(document: Path) -> list[Block]:
    """Every block of commands, in order."""
    fenced: list[Block] = []
    title, fence = "", None
    for line in document.read_text(encoding="utf-8").splitlines():
        if line.strip().startswith("```"):
            fence = None if fence is not None else line.strip()[3:]
            if fence == "":
                fenced.append(Block(title))
        elif fence == "":
            command = re.sub(r"(^|\s+)#.*", "", line).strip()
            fenced[-1].lines += [command] if command else []
        elif fence is None and line.startswith("#"):
            title = line.lstrip("# ")
    return fenced


def section(document: Path, title: str) -> list[str]:
    """The commands of the first block below a title."""
    return next(block for block in blocks(document) if block.title == title).lines


def calls(line: str) -> Iterator[list[str]]:
    """The arguments of every `lmeraser` in a line."""
    for part in re.split(r";|&&|\|", line):
        words = part.split()
        if words[:1] == ["lmeraser"]:
            yield words[1:]
