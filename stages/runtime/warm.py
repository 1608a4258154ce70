"""A process that stays: torch, Great Expectations and the backbone are loaded once, and each job finds them warm.

    python -m stages.runtime.warm SOCKET

Listens on a Unix socket below the project's private folder (mode 0700: nobody else can reach it). A job is one line of JSON,
`{"names": [...], "code": DIGEST, "before": FOLDER or null}`, with the caller's standard error passed along, so that progress is
shown where the job was asked for; the answer is `{"seconds": {...}}` or `{"line": ..., "exit_code": ...}`. Names and folder are
those of `stages.runtime.chain`.
If the caller goes, the process ends at once: nobody would record what it writes. If the code changed since it started, it
refuses and ends: its bytes would be those of the old code.
"""

import json
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmeraser.core.code import code_digest
from lmeraser.core.errors import LmeraserError
from lmeraser.core.layout import Layout
from lmeraser.core.progress import say
from lmeraser.core.sockets import listening
from stages.runtime.chain import load, load_update, run
from stages.runtime.entry import disk_is_full, read_project, writing

STAGES = ("split", "embed", "cluster", "validate", "tune", "head", "evaluate", "interim_head", "moves", "near")
LONGEST = 1_000_000  # bytes of a job's line


@dataclass(frozen=True)
class Job:
    """Attributes:
    names: of stages; before: folder of the state before, relative to the project; None: they run whole.
    code: the digest of the caller's code; error_output: the caller's, a file descriptor.
    """

    names: list[str]
    before: str | None
    code: str
    error_output: int


def _end_with_caller(connection: socket.socket, done: threading.Event) -> None:
    """End the process if the caller hangs up before the job is done."""
    while not done.is_set():
        ready, _, _ = select.select([connection], [], [], 0.2)
        if ready and not done.is_set() and connection.recv(1, socket.MSG_PEEK) == b"":
            os.kill(os.getpid(), signal.SIGKILL)


def _act(layout: Layout, job: Job) -> dict[str, Any]:
    try:
        params = read_project(layout)
        with writing(layout):
            return {"seconds": run(layout, params, job.names, job.before)}
    except LmeraserError as error:
        return {"line": str(error), "exit_code": error.exit_code}
    except OSError as error:
        line = disk_is_full(error)
        if line is None:
            raise
        return {"line": line, "exit_code": 1}


def _read_job(connection: socket.socket) -> Job | None:
    """What a caller asks for; None if it only asked whether somebody listens. Raises: ValueError if it sent anything else."""
    line, descriptors, _, _ = socket.recv_fds(connection, 65536, 1)
    if not line:
        return None
    while not line.endswith(b"\n"):
        more = connection.recv(65536)
        if not more or len(line) > LONGEST:
            raise ValueError("no whole line")
        line += more
    try:
        raw = json.loads(line)
        before = raw["before"]
        return Job(list(raw["names"]), None if before is None else str(before), str(raw["code"]), descriptors[0])
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError("not the fields of a job") from error


def _answer(connection: socket.socket, answer: dict[str, Any]) -> None:
    with suppress(ConnectionError):  # the caller is gone, and waits for nothing
        connection.sendall(json.dumps(answer).encode() + b"\n")


def _carry_out(job: Job, connection: socket.socket, layout: Layout, code: str) -> None:
    if job.code != code:
        _answer(connection, {"stale": True})
        say("warm: the code changed; ending")
        sys.exit(0)
    own = os.dup(2)
    os.dup2(job.error_output, 2)
    os.close(job.error_output)
    done = threading.Event()
    watch = threading.Thread(target=_end_with_caller, args=(connection, done), daemon=True)
    watch.start()
    start = time.monotonic()
    try:
        answer = _act(layout, job)
    finally:
        done.set()
        watch.join()
    os.dup2(own, 2)
    os.close(own)
    _answer(connection, answer)
    say(f"warm: {len(job.names)} stages in {time.monotonic() - start:.1f} s")


def serve_caller(connection: socket.socket, layout: Layout, code: str) -> None:
    """Do what a caller asks for. What a stage raises that is no refusal ends the process, as it ends a fresh one."""
    try:
        job = _read_job(connection)
    except (ValueError, ConnectionError):
        say("warm: a caller's message was refused; expected one line of JSON: names of stages, and the code's digest")
        return
    if job:
        _carry_out(job, connection, layout, code)


def serve(path: Path) -> None:
    """Load everything, then answer jobs one after the other until the process is ended."""
    layout = Layout.find(Path.cwd())
    code = code_digest(layout.root)
    for name in STAGES:
        load(name)
        load_update(name)
    import great_expectations  # noqa: F401  (imported late by the gate; three seconds)

    with listening(path) as listener:
        say("warm: ready")
        while True:
            connection, _ = listener.accept()
            with connection:
                serve_caller(connection, layout, code)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
