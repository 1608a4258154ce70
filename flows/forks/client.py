"""Ask the process that forks (`server.py`) to run a command. Where none answers, or it refuses, whoever asks starts a fresh one.

A copy is to its caller what a fresh process is: it gets the same folder, variables, umask, limits, streams and locks, and gives
the same output and exit status.
"""

import json
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from flows import processes
from lmeraser.core.layout import Layout
from lmeraser.core.sockets import fitting

PATIENCE = 30  # s until a copy says that it runs
LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})


class Copy:
    """A command that a copy runs. It has what `flows.processes` needs of a process."""

    def __init__(self, connection: socket.socket, process: int) -> None:
        self.pid = process
        self._connection = connection
        self._said = b""
        self._status: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, as of a `Popen`. Raises: TimeoutError."""
        if self._status is None:
            self._connection.settimeout(timeout)
            with suppress(ConnectionError):
                while more := self._connection.recv(64):
                    self._said += more
            self._connection.close()
            if not self._said:  # the process that forks is gone, and nobody else ends what the copy started
                processes.end_group(self.pid, signal.SIGKILL)
            self._status = int(self._said or -signal.SIGKILL)
        return self._status

    def abandon(self) -> None:
        """Hang up: the copy is killed, if it has not ended."""
        self._connection.close()


def _umask() -> int:
    """This process's, without changing it for a moment as `os.umask` does: other threads make files."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)


def _request(layout: Layout, module: str, arguments: Sequence[str], variables: Mapping[str, str]) -> bytes:
    request = {
        "module": module,
        "arguments": list(arguments),
        "root": str(layout.root),
        "python": sys.executable,
        "variables": dict(variables),
        "umask": _umask(),
        "limits": [(kind, resource.getrlimit(kind)) for kind in LIMITS],
    }
    return json.dumps(request).encode()


def _hand_over(
    layout: Layout, module: str, arguments: Sequence[str], streams: Sequence[int], variables: Mapping[str, str] | None = None
) -> Copy | None:
    """Let a copy run a command with these standard streams; None if there is no such process, or it refuses.

    Args: variables: of its environment; None: those of what works on the project.
    """
    if not layout.forks.exists():
        return None
    body = _request(layout, module, arguments, variables or processes.environment_of(layout))
    answer = b""
    with ExitStack() as opened:
        connection = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            connection.settimeout(PATIENCE)
            with fitting(layout.forks) as name:
                connection.connect(name)
            socket.send_fds(connection, [len(body).to_bytes(8, "big")], [*streams, *processes.INHERITED_LOCKS])
            connection.sendall(body)
            while not answer.endswith(b"\n"):  # a byte at a time: the exit status may follow at once
                answer += connection.recv(1) or b"\n"
            process = json.loads(answer).get("process")
        except (OSError, ValueError):
            return None
        if process is None:
            return None
        opened.pop_all()
        return Copy(connection, int(process))


def start(layout: Layout, module: str, arguments: Sequence[str], output: int) -> Copy | None:
    """Start a command that reads nothing. Args: output: where its standard output goes; its errors go to this process's."""
    with Path(os.devnull).open("rb") as nothing:
        return _hand_over(layout, module, arguments, [nothing.fileno(), output, 2])


def run(layout: Layout, module: str, arguments: Sequence[str]) -> int | None:
    """Let a copy run a command in this process's place, with its standard streams; None if nobody does.

    Returns: its exit status. An interrupt is the copy's, which has another group. It reads no terminal.
    """
    with Path(os.devnull).open("rb") as nothing:
        reads = nothing.fileno() if os.isatty(0) else 0
        copy = _hand_over(layout, module, arguments, [reads, 1, 2], processes.base_environment())
    while copy is not None:
        try:
            status = copy.wait()
        except KeyboardInterrupt:
            with suppress(ProcessLookupError):
                os.kill(copy.pid, signal.SIGINT)
        else:
            return status if status >= 0 else 128 - status  # as a shell tells of a signal
    return None


def ask(layout: Layout, module: str, arguments: Sequence[str], given: bytes = b"") -> processes.Completed | None:
    """Run a command to its end and keep what it prints. Args: given: its standard input."""
    pipes = [os.pipe() for _ in range(3)]
    (reads, give), (take, writes), (hear, complains) = pipes
    with ExitStack() as ours:
        try:
            copy = _hand_over(layout, module, arguments, [reads, writes, complains])
        finally:
            for theirs in (reads, writes, complains):
                os.close(theirs)
        ends = [ours.enter_context(os.fdopen(end, mode)) for end, mode in ((give, "wb"), (take, "rb"), (hear, "rb"))]
        if copy is None:
            return None
        ours.callback(copy.abandon)
        said: dict[int, bytes] = {}

        def hear_out(place: int) -> None:
            said[place] = ends[place].read()

        threads = [threading.Thread(target=hear_out, args=(place,), daemon=True) for place in (1, 2)]
        for thread in threads:
            thread.start()
        with suppress(BrokenPipeError):  # it ended without reading all of it, and its status says why
            ends[0].write(given)
            ends[0].flush()
        with suppress(BrokenPipeError):
            ends[0].close()
        for thread in threads:
            thread.join()
        return processes.Completed([module, *arguments], copy.wait(), said[1], said[2])
