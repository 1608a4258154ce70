"""The keys of `--json` that docs/commands.md tells: whatever the suite sees a command print is compared with its row."""

import re
from functools import cache
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
OF_A_REQUEST = "forget"  # what a row means by "the above"


@cache
def rows() -> tuple[tuple[str, str], ...]:
    """Each row of the table of keys: its command's cell, and the cell with the keys."""
    lines = PAGE.read_text(encoding="utf-8").partition("| command | keys |")[2].splitlines()
    return tuple((line.split("|")[1].strip(), line.split("|", 2)[2]) for line in lines if line.startswith("| `"))


def words(cell: str) -> set[str]:
    """The keys in a cell: all that stands in backticks."""
    return {word for part in re.findall(r"`([^`]+)`", cell) for word in re.split(r"[,\s]+", part)}


def keys_of(command: str) -> set[str]:
    """What the rows of a command tell. Args: command: `forget`, or `token create`."""
    cells = [(title, cell) for title, cell in rows() if re.search(rf"`{command.split(maxsplit=1)[0]}\b", title)]
    told = {word for _, cell in cells for word in words(cell)}
    if any("the above" in cell for _, cell in cells):
        told |= keys_of(OF_A_REQUEST)
    return told


def shown(answer: Any) -> set[str]:
    """The keys of an object, and of the objects in its lists; what an object inside is keyed by may be names, so not those."""
    if isinstance(answer, list):
        return {key for item in answer for key in shown(item)}
    if not isinstance(answer, dict):
        return set()
    return set(answer) | {key for value in answer.values() if isinstance(value, list) for key in shown(value)}


def require_told(command: str, answer: dict[str, Any]) -> None:
    """Fail where a command printed a key that its row lacks."""
    assert shown(answer) <= keys_of(command), f"{command}: no row tells of {sorted(shown(answer) - keys_of(command))}"
