"""The command `lmeraser`, and nothing else that people type."""

import sys
from collections.abc import Sequence
from pathlib import Path

from flows.cli import command_line

HANDED = ("forget", "submit", "plan")  # what people wait for, most of all until a request is in effect


def main(arguments: Sequence[str] | None = None) -> None:
    """Act, by a copy of a process that has imported what it takes where `make serve` keeps one, else here; and exit."""
    status = _by_a_copy(sys.argv[1:]) if arguments is None else None
    if status is not None:
        sys.exit(status)
    command_line.main(arguments)


def _by_a_copy(arguments: Sequence[str]) -> int | None:
    """The exit status; None where it is done here: also in a folder below the project's, and where something is read as typed."""
    if not arguments or arguments[0] not in HANDED or "-" in arguments:
        return None
    from lmeraser.core.layout import Layout

    layout = Layout(Path.cwd())
    if not layout.forks.exists():  # asked here as well, so that nothing is imported where no process forks
        return None
    from flows.forks import client

    return client.run(layout, "flows.cli.command_line", arguments)


__all__ = ["main"]
