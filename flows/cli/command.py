"""What a command is, and what all commands have: `--json`, a result, exit codes.

A command is a module of this folder, named as people type it, and listed in `flows/cli/registry.py`. It has `HELP`,
`EXIT_CODES`, `EXAMPLES`, `arguments` and `act`. Every start of `lmeraser` imports all of them: whatever costs time (the ledger's
database, pandas, torch) is imported within `act`.
"""

import argparse
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Result = tuple[dict[str, Any], list[str]]  # for --json, and lines for people

BAD_INPUT = "bad input; the line on standard error says what to mend"
PUBLIC = "blocked: the people have public records, and --include-public was not given"
INTERRUPTED = 130  # as a shell tells it of Ctrl-C
ENDS = "interrupted; nothing is lost: `lmeraser resume` finishes what was begun"
WIDTH = 78  # columns; as argparse takes them where it cannot ask the terminal


class Command(Protocol):
    """Attributes: HELP: one line; EXIT_CODES: what each exit status means, 130 left out; EXAMPLES: lines to type."""

    __name__: str
    HELP: str
    EXIT_CODES: dict[int, str]
    EXAMPLES: list[str]

    def arguments(self, parser: argparse.ArgumentParser, /) -> None:
        """Declare what the command takes beside --json."""

    def act(self, options: argparse.Namespace, /) -> Result:
        """Do it. Args: options: what was typed, and `parser`, of all commands. Raises: LmeraserError: the exit status."""


def name_of(command: Command) -> str:
    return command.__name__.rpartition(".")[2]


def passed(result: Mapping[str, Any]) -> bool:
    """Whether every check of a result passed, else the exit status is 1; "no power" is never a pass."""
    flags = all(bool(result.get(flag, True)) for flag in ("equal", "clean", "within_tolerances", "ready", "sound"))
    flags = flags and bool(result.get("selection", {}).get("complete", True)) and "problem" not in result.get("people", {})
    return flags and not result.get("people_back") and result.get("verdict", "pass") == "pass"


def exit_codes(codes: Mapping[int, str]) -> str:
    """The end of a help text."""
    lines = ["exit codes:"]
    for code, meaning in sorted({**codes, INTERRUPTED: ENDS}.items()):
        lines.append(textwrap.fill(meaning, WIDTH, initial_indent=f"  {code:<5}", subsequent_indent=" " * 7))
    return "\n".join(lines)


def within(lines: Sequence[str], width: int) -> list[str]:
    """Lines of a title and a value, folded below the value where they are longer than a terminal; all others as they are."""
    folded = []
    for line in lines:
        row = re.match(r"\S.*?\s{2,}(?=\S)", line) if len(line) > width else None
        if row and row.end() < width // 2:
            below = " " * row.end()
            folded += textwrap.wrap(line, width, subsequent_indent=below, break_long_words=False, break_on_hyphens=False)
        else:
            folded.append(line)
    return folded


def examples(lines: Sequence[str]) -> str:
    """Lines to type, above the exit codes; a long one goes on in the next line as a shell takes it."""
    wrapped = (
        textwrap.wrap(
            line, WIDTH - 4, initial_indent="  ", subsequent_indent="      ", break_long_words=False, break_on_hyphens=False
        )
        for line in lines
    )
    return "\n".join(["examples:", *(" \\\n".join(pieces) for pieces in wrapped)])


def add_parser(commands: Any, command: Command) -> None:
    """Args: commands: what argparse's `add_subparsers` returned."""
    parser = commands.add_parser(
        name_of(command),
        help=command.HELP,
        description=textwrap.fill(command.HELP, WIDTH),
        epilog=f"{examples(command.EXAMPLES)}\n\n{exit_codes(command.EXIT_CODES)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # the epilog is a table
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.set_defaults(act=command.act)
    command.arguments(parser)
