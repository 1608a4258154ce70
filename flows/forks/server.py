"""A process that has imported DVC, the scan and what requests need, and forks a copy of itself for every command.

    python -m flows.forks.server SOCKET

The import takes longer than most commands. A copy begins where a fresh process stands after its imports: this one opens no file
of the project but its code, no database and no thread, and never sees what a caller sends, for the copy alone reads that. So the
scan in a copy shares no memory, no open file and no cached listing with the purge, as in any new process. A copy takes over the
caller's folder, variables, umask, limits, standard streams and locks, in a group of its own.

Listens on a Unix socket below the project's private folder (mode 0700: nobody else can reach it). A caller (`client.py`) sends a
request with its open descriptors. The answer is a line `{"process": ID}` or `{"refused": WHY}`, and at the end the exit status.
If the caller goes, the copy and all that it started are killed. If the code or DVC changed since the start, or the caller has
other variables of those that are read at the start, it is refused and starts a fresh process; in the first case this one ends.
"""

import atexit
import gc
import importlib
import importlib.util
import json
import os
import resource
import selectors
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from flows import processes
from lmeraser.core import determinism
from lmeraser.core.code import PACKAGES, code_digest
from lmeraser.core.layout import Layout
from lmeraser.core.progress import say
from lmeraser.core.sockets import listening

# What is run here, by its module: all that a copy ever runs.
COMMANDS = ("dvc", "flows.dvc.record", "flows.dvc.status", "flows.purge.scan", "flows.cli.command_line")
# And what these import only when they run; another DVC may not have all of it.
LATE = (
    *("dvc.cli", "dvc.cli.parser", "dvc._debug", "dvc.cachemgr", "dvc.data_cloud", "dvc.dirs", "dvc.lock", "dvc.rwlock"),
    *("dvc.scm", "dvc.parsing.context", "dvc.render.convert", "dvc.utils.strictyaml", "dvc.stage.cache", "dvc.stage.serialize"),
    *("dvc.repo", "dvc.repo.artifacts", "dvc.repo.datasets", "dvc.repo.index", "dvc.repo.metrics", "dvc.repo.open_repo"),
    *("dvc.repo.params", "dvc.repo.plots", "dvc.repo.scm_context", "dvc.repo.stage", "dvc_data.index", "dvc_data.index.checkout"),
    *("dvc_data.hashfile.checkout", "dvc_data.hashfile.db.local", "dvc_data.hashfile.status", "dvc_data.hashfile.transfer"),
    *(
        "dvc_objects.fs.local",
        "fsspec.implementations.memory",
        "diskcache",
        "ruamel.yaml",
        "pyparsing",
        "rich.console",
        "rich.json",
    ),
    *("scmrepo.noscm", "scmrepo.git.backend.pygit2", "scmrepo.git.backend.dulwich", "dulwich.ignore", "dulwich.index"),
    *("flows.project", "flows.requests.intake", "flows.requests.coordinator", "flows.cli.receiving", "flows.cli.summary"),
    *("sqlalchemy.dialects.sqlite.pysqlite", "cryptography.hazmat.primitives.asymmetric.ed25519", "flows.purge.step"),
    *("flufl.lock", "zc.lockfile", "psutil", "getpass", "configobj", "pyarrow.parquet", "pyarrow.compute"),
    *("pyarrow.pandas_compat", "pandas", "scipy.linalg", "numpy.ma", "threadpoolctl", "securesystemslib.signer"),
)
# How the names begin of variables that Python and libraries read when they start, beside those that `determinism` settles.
READ_AT_START = ("PYTHON", "LD_", "MALLOC_", "LC_", "LANG", "FSSPEC_")
OWN_FORK = ("jemalloc_bg_thd",)  # Arrow's allocator makes itself ready before a fork, and its thread anew after it
MOST = 64  # descriptors that a caller passes along
RUNNING, STALE = b"r", b"s"  # what a copy says to this process; its end says the rest


class RefusedError(Exception):
    """A copy cannot stand for a fresh process. Attributes: stale: nor could any later one."""

    def __init__(self, why: str, stale: bool = False) -> None:
        super().__init__(why)
        self.stale = stale


def read_at_start(variables: Mapping[str, str], root: Path) -> dict[str, str]:
    """Those variables that must be the caller's from the start of a process. The project's folder is on the path anyway."""
    names = (*READ_AT_START, *determinism.PINS, *determinism.FOREIGN)
    others = determinism.HARMLESS  # libraries set some of them in a process that goes on
    kept = {name: value for name, value in variables.items() if name.startswith(names) and name not in others}
    folders = [folder for folder in kept.pop("PYTHONPATH", "").split(os.pathsep) if folder not in ("", str(root))]
    return kept | ({"PYTHONPATH": os.pathsep.join(folders)} if folders else {})


@dataclass(frozen=True)
class Origin:
    """What this process was when it began. Attributes: variables: of its start, before anything was imported."""

    root: Path
    variables: dict[str, str]
    code: str
    dvc: str

    @classmethod
    def now(cls, root: Path, variables: Mapping[str, str]) -> "Origin":
        return cls(root, read_at_start(variables, root), code_digest(root, PACKAGES), version("dvc"))

    def require(self, request: dict[str, Any]) -> None:
        """Raise RefusedError unless a copy is what a fresh process of the caller would be."""
        now = Origin.now(self.root, request["variables"])
        if (now.code, now.dvc) != (self.code, self.dvc):
            raise RefusedError("the code changed", stale=True)
        if now.variables != self.variables:
            raise RefusedError("variables that are read at the start are others")
        if (request["root"], request["python"]) != (str(self.root), sys.executable):
            raise RefusedError("another folder or another Python")
        if request["module"] not in COMMANDS:
            raise RefusedError("no command of this process")


@dataclass(frozen=True)
class Command:
    """What a copy is to run."""

    module: str
    arguments: list[str]

    def run(self) -> int:
        """As `python -m` runs it; returns its exit status."""
        if self.module == "dvc":
            from dvc.cli import main

            sys.argv = [str(importlib.util.find_spec("dvc.__main__").origin), *self.arguments]  # type: ignore[union-attr]
            return int(main(self.arguments) or 0)
        module = importlib.import_module(self.module)
        sys.argv = [str(module.__file__), *self.arguments]
        return int(module.main())


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A request, and the descriptors that came with it. Raises: ValueError if it is none."""
    size, descriptors, _, _ = socket.recv_fds(connection, 8, MOST)
    body = bytearray()
    while len(body) < int.from_bytes(size, "big"):
        more = connection.recv(1 << 20)
        if not more:
            raise ValueError("no whole request")
        body += more
    request = json.loads(body)
    if not isinstance(request, dict) or len(descriptors) < 3:
        raise ValueError("no request, or no standard streams")
    return request, descriptors


def take_over(request: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Stand where the caller stands. What it passed beyond the standard streams are its locks: held to the end."""
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["variables"])
    os.chdir(request["root"])
    os.umask(request["umask"])
    try:
        for kind, limits in request["limits"]:
            if list(resource.getrlimit(kind)) != limits:
                resource.setrlimit(kind, tuple(limits))
    except (ValueError, OSError) as error:
        raise RefusedError("limits that cannot be taken over") from error
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())  # type: ignore[union-attr]
    tempfile.tempdir = None
    time.tzset()


@dataclass(frozen=True)
class Copy:
    """A copy under way. Attributes: caller: connected to it; ending: readable when the copy speaks or has ended."""

    process: int
    caller: socket.socket
    ending: int
    began: float = field(default_factory=time.monotonic)


class Server:
    """Accepts callers, forks a copy for each, and tells a caller how its copy ended."""

    def __init__(self, listener: socket.socket, origin: Origin) -> None:
        self.listener, self.origin = listener, origin
        self.events = selectors.DefaultSelector()
        self.copies: dict[int, Copy] = {}
        self.stale = False

    def serve(self) -> Command:
        """Returns in a copy alone, with what it is to run. Raises: SystemExit when this process is to end."""
        self.events.register(self.listener, selectors.EVENT_READ, None)
        try:
            while not self.stale or self.copies:
                for event, _ in self.events.select():
                    if event.data is not None:
                        event.data()
                    elif command := self._accept():
                        return command
        except SystemExit:
            for copy in self.copies.values():
                self._signal(copy, signal.SIGTERM)
            raise
        say("forks: the code changed; ending")
        sys.exit(0)

    def _accept(self) -> Command | None:
        """In a copy what it is to run; None in this process."""
        caller, _ = self.listener.accept()
        ending, tell = os.pipe()
        process = processes.fork()
        if process == 0:
            os.close(ending)
            return self._become(caller, tell)
        os.close(tell)
        copy = self.copies[process] = Copy(process, caller, ending)
        self.events.register(ending, selectors.EVENT_READ, partial(self._hear, copy))
        return None

    def _become(self, caller: socket.socket, tell: int) -> Command:
        """In a copy: leave this process's descriptors, read the request, take over. Ends the copy if it must not go on."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.events.close()
        self.listener.close()
        for copy in self.copies.values():
            copy.caller.close()
            os.close(copy.ending)
        try:
            request, descriptors = receive(caller)
            self.origin.require(request)
            take_over(request, descriptors)
            command = Command(str(request["module"]), [str(argument) for argument in request["arguments"]])
            os.write(tell, RUNNING)
            caller.sendall(json.dumps({"process": os.getpid()}).encode() + b"\n")
        except RefusedError as error:
            os.write(tell, STALE if error.stale else b"")
            self._refuse(caller, str(error))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._refuse(caller, "no request")
        return command

    def _refuse(self, caller: socket.socket, why: str) -> NoReturn:
        with suppress(OSError):
            caller.sendall(json.dumps({"refused": why}).encode() + b"\n")
        os._exit(0)

    def _hear(self, copy: Copy) -> None:
        """A copy runs from now on, or is refused by what every later one would be too, or has ended."""
        said = os.read(copy.ending, 1)
        if said == RUNNING:
            self.events.register(copy.caller, selectors.EVENT_READ, partial(self._abandoned, copy))
        elif said == STALE:
            self.stale = True
            self.events.unregister(self.listener)
            self.listener.close()  # whoever comes now starts a fresh process
        else:
            self._ended(copy)

    def _abandoned(self, copy: Copy) -> None:
        """Whoever asked is gone, so what it asked for goes."""
        self.events.unregister(copy.caller)
        self._signal(copy, signal.SIGKILL)

    def _ended(self, copy: Copy) -> None:
        _, status = os.waitpid(copy.process, 0)
        del self.copies[copy.process]
        self.events.unregister(copy.ending)
        os.close(copy.ending)
        with suppress(KeyError):
            self.events.unregister(copy.caller)
        code = os.waitstatus_to_exitcode(status)
        with suppress(OSError):
            copy.caller.sendall(str(code).encode())
        copy.caller.close()
        say(f"forks: a command in {time.monotonic() - copy.began:.1f} s, status {code}")

    def _signal(self, copy: Copy, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(copy.process, number)


def _other_threads() -> list[str]:
    """Names of this process's threads that would not outlive a fork as they should."""
    tasks = sorted(Path("/proc/self/task").iterdir(), key=lambda task: int(task.name))
    names = [(task / "comm").read_text(encoding="utf-8").strip() for task in tasks[1:]]
    return [name for name in names if name not in OWN_FORK]


def _end(_: int, __: FrameType | None) -> NoReturn:
    sys.exit(0)


def _serve(path: Path, variables: Mapping[str, str]) -> Command:
    """Import everything, listen, and return in a copy."""
    origin = Origin.now(Layout.find(Path.cwd()).root, variables)
    for module in COMMANDS:
        importlib.import_module(module)
    for module in LATE:
        with suppress(ImportError):
            importlib.import_module(module)
    others = _other_threads()
    if others:
        say(f"forks: the imports started threads ({', '.join(others)}), which a copy would not have; not serving")
        sys.exit(1)
    gc.collect()
    gc.freeze()  # a copy's collections leave these pages alone
    with listening(path) as listener:
        signal.signal(signal.SIGTERM, _end)
        say("forks: ready")
        return Server(listener, origin).serve()


def leave(status: int) -> NoReturn:
    """End a copy as a process ends, but leave its memory to the kernel: to take apart all that was imported takes longer than
    many a command, and copies page after page of it first."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> NoReturn:
    determinism.require()
    leave(_serve(Path(sys.argv[1]), dict(os.environ)).run())


if __name__ == "__main__":
    main()
