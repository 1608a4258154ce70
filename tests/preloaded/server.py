"""A process that has imported what takes seconds, and forks a copy of itself for every command of a sandbox.

    python server.py SOCKET PID        ends when the process PID ends

Nothing of this repository is imported here: what a copy runs is the code of the folder that its command was typed in. Commands
with other pinned instruction sets than this process has, which are read at the import, are sent back and start cold, as do
those of tests that are about processes themselves.
"""

import array
import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import traceback
from functools import partial
from typing import Any, NoReturn

LIBRARIES = (
    *("numpy", "scipy.linalg", "pandas", "pyarrow.parquet", "PIL.Image", "safetensors.numpy", "sqlalchemy", "pydantic", "yaml"),
    *("torch", "torchvision", "timm", "torch.fx", "safetensors.torch", "sklearn.linear_model", "matplotlib.figure"),
    *("matplotlib.backends.backend_agg", "great_expectations", "threadpoolctl", "cryptography", "securesystemslib.signer"),
    *("dvc.cli", "dvc.repo", "dvc.commands.repro", "dvc.commands.commit", "dvc.commands.status", "dvc.stage.cache"),
)
# The libraries read these when they are imported; the project settles the others (lmeraser/core/determinism.py).
READ_EARLY = ("ATEN_", "DNNL_", "ONEDNN_", "GLIBC_", "NPY_", "OPENBLAS_", "OMP_", "MKL_", "PYTHONHASHSEED", "PYTHONSAFEPATH")
MOST = 250  # descriptors of a command


def early(variables: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith(READ_EARLY)}


def named_folders(variables: dict[str, str]) -> list[str]:
    return [os.path.abspath(folder) for folder in variables.get("PYTHONPATH", "").split(os.pathsep) if folder]  # noqa: PTH100


def received(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A command, and its descriptors as this process has them."""
    descriptors = array.array("i")
    size, rights, *_ = connection.recvmsg(8, socket.CMSG_SPACE(MOST * descriptors.itemsize))
    for _, _, content in rights:
        descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    body = bytearray()
    while len(body) < int.from_bytes(size, "big"):
        body += connection.recv(1 << 20) or sys.exit(1)
    return json.loads(body), list(descriptors)


def take_over(request: dict[str, Any], descriptors: list[int]) -> None:
    """Become the process that sent a command: its descriptors under its numbers, its folder, its variables."""
    wanted = request["descriptors"]
    above = max([*wanted, *descriptors]) + 1
    spare = [os.dup2(number, above + place) for place, number in enumerate(descriptors)]
    os.closerange(0, above)
    for number, copy in zip(wanted, spare, strict=True):
        os.dup2(copy, number, inheritable=True)
        os.close(copy)
    os.chdir(request["folder"])
    beyond = sys.path[1 + len(named_folders(dict(os.environ))) :]
    os.environ.clear()
    os.environ.update(request["variables"])
    sys.path[:] = [os.getcwd(), *named_folders(dict(os.environ)), *beyond]  # noqa: PTH109
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    for name, number, errors in (("stdout", 1, "strict"), ("stderr", 2, "backslashreplace")):
        stream = io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(number, "w", closefd=False)), errors=errors, line_buffering=number == 2 or unbuffered
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def run(arguments: list[str]) -> int:
    """`python -m`, as the interpreter does it; returns the exit status."""
    _, module, *rest = arguments
    sys.orig_argv[1:] = arguments
    sys.argv = ["-m", *rest]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def child(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Run a command and end as an interpreter does."""
    take_over(request, descriptors)
    status = run(request["arguments"])
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


class Server:
    """Takes commands, forks a copy for each, and tells whoever sent it how it ended."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.events = selectors.DefaultSelector()
        self.events.register(listener, selectors.EVENT_READ, self.accept)
        self.places: dict[int, tuple[socket.socket, int]] = {}  # process: who sent it, its descriptor

    def accept(self) -> None:
        connection, _ = self.listener.accept()
        connection.settimeout(None)
        try:
            request, descriptors = received(connection)
        except (OSError, ValueError):  # it was killed meanwhile
            connection.close()
            return
        if early(request["variables"]) != early(dict(os.environ)):
            connection.sendall(b"cold")
            connection.close()
        elif process := os.fork():
            over = os.pidfd_open(process)
            self.places[process] = connection, over
            self.events.register(over, selectors.EVENT_READ, partial(self.reap, process))
            self.events.register(connection, selectors.EVENT_READ, partial(self.abandoned, process))
        else:
            self.become(request, descriptors)
        for number in descriptors:  # a pipe ends when its last writer closes it
            os.close(number)

    def become(self, request: dict[str, Any], descriptors: list[int]) -> NoReturn:
        """In the copy: run a command. `take_over` closes what is the server's own."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        child(request, descriptors)

    def abandoned(self, process: int) -> None:
        """Whoever sent a command was killed, so the command is."""
        self.events.unregister(self.places[process][0])
        os.kill(process, signal.SIGKILL)

    def reap(self, process: int) -> None:
        _, status = os.waitpid(process, 0)
        connection, over = self.places.pop(process)
        self.events.unregister(over)
        os.close(over)
        with contextlib.suppress(KeyError):
            self.events.unregister(connection)
        with contextlib.suppress(OSError):
            connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        connection.close()

    def run(self, watched: int) -> None:
        """Until a process ends."""
        while os.path.exists(f"/proc/{watched}"):  # noqa: PTH110
            for event, _ in self.events.select(1):
                if event.fileobj in self.events.get_map():  # an earlier one of these may have ended it
                    event.data()


def ended(number: int, frame: object) -> NoReturn:
    os._exit(0)  # what the libraries do at a regular end takes a second


def main(path: str, watched: int) -> None:
    for library in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others:
        raise SystemExit(f"a library started threads, which a copy would not have: {others}")
    foreign = [name for name in sys.modules if name.split(".")[0] in ("lmeraser", "flows", "stages")]
    if foreign:
        raise SystemExit(f"code of this repository was imported: {foreign}")
    signal.signal(signal.SIGTERM, ended)
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(64)
        Server(listener).run(watched)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
