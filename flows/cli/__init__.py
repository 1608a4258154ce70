"""The command `lmeraser`, and nothing else that people type."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from flows.cli import command_line

OF_ITS_OWN = ("verify", "manifest", "new", "completion")  # no project is needed, and whoever checks has code of their own
HANDED_OVER = "LMERASER_HANDED_OVER"  # set for the process that this one becomes: it happens once
HANDED = ("forget", "submit", "plan")  # what people wait for, most of all until a request is in effect


def main(arguments: Sequence[str] | None = None) -> None:
    """Act, by the project's own code, or a copy of a process that has imported what it takes, or here; and exit."""
    if arguments is None:
        _by_own_code(sys.argv[1:])
    status = _by_a_copy(sys.argv[1:]) if arguments is None else None
    if status is not None:
        sys.exit(status)
    command_line.main(arguments)


def _by_own_code(arguments: Sequence[str]) -> None:
    """Become `python -m flows.cli` of the project that holds the working folder, if its code is another than this.

    Certificates name the project's commit, so an installed `lmeraser` may not make its artifacts. Only folders of this user's own
    are trusted: code that somebody else left here is never run, and the command refuses.
    """
    if not arguments or arguments[0] in OF_ITS_OWN or arguments[0].startswith("-") or {"-h", "--help"} & {*arguments}:
        return
    try:
        start = Path(os.environ.get("LMERASER_PROJECT") or Path.cwd()).resolve()
    except OSError:  # the working folder was deleted
        return
    root = next((folder for folder in (start, *start.parents) if (folder / "dvc.yaml").is_file() and _has_code(folder)), None)
    handed_over = os.environ.pop(HANDED_OVER, "")  # taken off: what is started from here may be of other projects
    here = Path(__file__).resolve().parents[2]
    if root is None or root == here or handed_over or root.stat().st_uid != os.getuid():
        return
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "flows.cli", *arguments]
    os.execve(sys.executable, command, os.environ | {"PYTHONPATH": path, HANDED_OVER: "1"})  # noqa: S606 (this very interpreter)


def _has_code(folder: Path) -> bool:
    return (folder / "params.yaml").is_file() and (folder / "flows" / "cli" / "__init__.py").is_file()


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
