"""How child processes are run: by a list of arguments, never a shell; in a folder that is named; ended with all they started.

No other module starts one (a contract in pyproject.toml). Each has a group of its own: to end dvc alone would leave a stage's
process writing. What changes the project also inherits its locks.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Protocol

from lmeraser.core import determinism
from lmeraser.core.errors import REPORT_VARIABLE, StepFailedError
from lmeraser.core.layout import Layout


class Running(Protocol):
    """A command under way, in a group of its own that has its id. Its exit status is negative where a signal ended it."""

    pid: int

    def wait(self, timeout: float | None = None) -> int:
        """Raises: TimeoutError, or as a `Popen` does."""


Process = subprocess.Popen[str]
Service = subprocess.Popen[bytes]
Completed = subprocess.CompletedProcess[bytes]

PATIENCE = 10  # s that a command has to end when it is told to
PR_SET_PDEATHSIG = 1  # prctl(2)

# Descriptors of the locks that this process holds. What it starts inherits them, so that after a kill nobody else changes the
# project while an orphan still writes.
INHERITED_LOCKS: list[int] = []


def base_environment() -> dict[str, str]:
    """The environment of every child: this interpreter first on PATH, and no analytics.

    Variables that reach bits are settled already: a command that plain `dvc` starts finds them as a stage would make them.
    """
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join((here, os.environ.get("PATH", "")))
    return determinism.settled(os.environ) | {"PATH": path, "DO_NOT_TRACK": "1"}


def environment_of(layout: Layout) -> dict[str, str]:
    """The environment of what works on a project, DVC's own variables included."""
    return base_environment() | {
        "DVC_NO_ANALYTICS": "1",
        # Beside the project: what DVC remembers there goes when the project goes, and copies do not share it.
        "DVC_SITE_CACHE_DIR": str(layout.root / ".dvc" / "tmp" / "site"),
        REPORT_VARIABLE: str(layout.error_report),  # DVC hides a stage's exit status
    }


def start(command: Sequence[str], layout: Layout, extra: Mapping[str, str] = MappingProxyType({}), **pipes: Any) -> Process:
    """Start a command that may change the project. Args: extra: variables of this command alone."""
    return subprocess.Popen(
        list(command),
        cwd=layout.root,
        env=environment_of(layout) | dict(extra),
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        pass_fds=tuple(INHERITED_LOCKS),
        **pipes,
    )


def output_of(command: Sequence[str], layout: Layout) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command that may change the project."""
    process = start(command, layout, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, complaint = process.communicate()
    return process.returncode, output, complaint


def read_only(
    command: Sequence[str], folder: Path | None = None, given: bytes = b"", environment: Mapping[str, str] | None = None
) -> Completed:
    """Run a command that changes nothing of the project, and keep what it prints.

    Args: folder: to run it in, else this process's own; given: its standard input; environment: all of its variables, else
        this process's own.
    Raises: FileNotFoundError if there is no such program or folder.
    """
    return subprocess.run(list(command), input=given, cwd=folder, env=environment, capture_output=True, check=False)


def tell(command: Sequence[str], folder: Path, environment: Mapping[str, str], given: bytes, patience: float) -> int:
    """Run a command that has no part in the project (it inherits no lock), with no more variables than these; its exit status.

    What it prints is dropped. Args: given: its standard input; patience: s until it is ended, with all that it started.
    Raises: TimeoutError; OSError if it cannot be started.
    """
    process = subprocess.Popen(
        list(command),
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.communicate(given, timeout=patience)
    except BaseException as error:
        end_group(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise TimeoutError from error
        raise
    return process.returncode


def stop(processes: Sequence[Running], patience: float = PATIENCE) -> None:
    """End commands and everything that they started: all are asked at once, and killed if they do not end in time.

    Args: patience: s that they have together.
    """
    for process in processes:
        end_group(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    for process in processes:
        with suppress(subprocess.TimeoutExpired, TimeoutError):
            process.wait(timeout=max(0.1, deadline - time.monotonic()))
        end_group(process.pid, signal.SIGKILL)
        process.wait()


def end_group(process: int, number: int) -> None:
    """Send a signal to a command and everything that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process, number)


def statuses(processes: Sequence[Running]) -> list[int]:
    """Wait for commands; if we are interrupted, end them. Returns their exit statuses."""
    try:
        return [process.wait() for process in processes]
    except BaseException:
        stop(processes)
        raise


def clear_report(layout: Layout) -> None:
    """Delete an earlier stage's error line."""
    layout.private_state.mkdir(exist_ok=True, mode=0o700)
    layout.error_report.unlink(missing_ok=True)


def reported_failure(layout: Layout) -> StepFailedError | None:
    """The error of a stage that failed, by its own line; None if it left none."""
    report = layout.error_report
    if not report.exists():
        return None
    failure = json.loads(report.read_bytes())
    report.unlink()
    return StepFailedError(failure["line"], failure["exit_code"])


def _die_with_parent(number: int = signal.SIGTERM) -> None:
    if sys.platform == "linux":  # elsewhere an orphan must be ended by hand
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def fork() -> int:
    """As `os.fork`; the copy has a group of its own, and is killed when this process ends: nobody would tell how it ended."""
    parent = os.getpid()
    process = os.fork()
    if process == 0:
        os.setsid()
        _die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:  # it ended meanwhile
            os._exit(1)
    return process


def start_service(command: Sequence[str], folder: Path, environment: Mapping[str, str], log: BinaryIO) -> Service:
    """Start a process that runs as long as this one, with its output in a log."""
    return subprocess.Popen(
        list(command),
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_parent,  # noqa: PLW1509  (one thread here; an orphan would keep the port)
    )


def run_logged(command: Sequence[str], folder: Path, environment: Mapping[str, str], log: BinaryIO) -> int:
    """Run a command to its end, with its output in a log; returns its exit status."""
    return subprocess.run(
        list(command), cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
    ).returncode
