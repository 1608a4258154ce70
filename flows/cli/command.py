"""What a command is, and what all commands have: `--json`, a result, exit codes.

A command is a module of this folder, named as people type it, and listed in `flows/cli/registry.py`. It has `HELP`, `EXIT_CODES`,
`arguments` and `act`. Every start of `lmeraser` imports all of them: whatever costs time (the ledger's database, pandas, torch)
is imported within `act`.
"""

import argparse
import textwrap
from collections.abc import Mapping
from typing import Any, Protocol

Result = tuple[dict[str, Any], list[str]]  # for --json, and lines for people

BAD_INPUT = "bad input; the line on standard error says what to mend"
PUBLIC = "blocked: the people have public records, and --include-public was not given"
INTERRUPTED = 130  # as a shell tells it of Ctrl-C
ENDS = "interrupted; nothing is lost: `lmeraser resume` finishes what was begun"
WIDTH = 78  # columns; as argparse takes them where it cannot ask the terminal


class Command(Protocol):
    """Attributes: HELP: one line; EXIT_CODES: what each exit status of the command means, 130 left out."""

    __name__: str
    HELP: str
    EXIT_CODES: dict[int, str]

    def arguments(self, parser: argparse.ArgumentParser, /) -> None:
        """Declare what the command takes beside --json."""

    def act(self, options: argparse.Namespace, /) -> Result:
        """Do it. Raises: LmeraserError, whose `exit_code` is the exit status."""


def name_of(command: Command) -> str:
    return command.__name__.rpartition(".")[2]


def passed(result: Mapping[str, Any]) -> bool:
    """Whether every check of a result passed, else the exit status is 1; "no power" is never a pass."""
    clean = bool(result.get("equal", True)) and bool(result.get("clean", True)) and not result.get("people_back")
    clean = clean and bool(result.get("selection", {}).get("complete", True)) and "problem" not in result.get("people", {})
    return clean and result.get("verdict", "pass") == "pass"


def exit_codes(codes: Mapping[int, str]) -> str:
    """The end of a help text."""
    lines = ["exit codes:"]
    for code, meaning in sorted({**codes, INTERRUPTED: ENDS}.items()):
        lines.append(textwrap.fill(meaning, WIDTH, initial_indent=f"  {code:<5}", subsequent_indent=" " * 7))
    return "\n".join(lines)


def add_parser(commands: Any, command: Command) -> None:
    """Args: commands: what argparse's `add_subparsers` returned."""
    parser = commands.add_parser(
        name_of(command),
        help=command.HELP,
        description=textwrap.fill(command.HELP, WIDTH),
        epilog=exit_codes(command.EXIT_CODES),
        formatter_class=argparse.RawDescriptionHelpFormatter,  # the epilog is a table
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.set_defaults(act=command.act)
    command.arguments(parser)
