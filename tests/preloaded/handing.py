"""At the start of a Python process of a sandbox: hands it to the process that has imported torch already.

Importing torch, timm and Great Expectations takes 3 to 6 processor seconds, and a test starts dozens of processes; see
`server.py`. This process stays: it waits for the other one, ends as that ended, and takes it along when it is killed.
"""

import array
import json
import os
import signal
import socket
import sys

SOCKET = "LMERASER_TESTS_PRELOADED"  # where the server listens
MODULES = ("dvc", "flows.cli", "flows.dvc.record", "flows.purge.scan", "stages.")  # how the names of what is handed over begin
COLD = ("stages.runtime.warm",)  # tests are about these processes themselves


def wanted(arguments: list[str]) -> bool:
    """Whether a command line is `python -m` one of the modules that are handed over."""
    if arguments[:1] != ["-m"] or len(arguments) < 2:
        return False
    return arguments[1].startswith(MODULES) and arguments[1] not in COLD


def hand_over(path: str) -> int | None:
    """The exit status of the command as the server ran it (negative: a signal); None if it does not take it."""
    descriptors = sorted(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208 (pathlib takes time to import)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(path)
        except OSError:
            return None
        passed = [number for number in descriptors if number != connection.fileno() and is_open(number)]
        request = {"arguments": sys.orig_argv[1:], "folder": os.getcwd(), "variables": dict(os.environ), "descriptors": passed}  # noqa: PTH109
        body = json.dumps(request).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", passed))]
        connection.sendmsg([len(body).to_bytes(8, "big")], rights)
        connection.sendall(body)
        answer = b""
        while more := connection.recv(64):
            answer += more
    return int(answer) if answer.strip(b"-").isdigit() else None


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def customize() -> None:
    """Run the `sitecustomize` that this folder's hides: a test's own, which changes a command before it begins."""
    for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        path = os.path.join(folder, "sitecustomize.py")  # noqa: PTH118
        if folder and os.path.exists(path) and not os.path.samefile(folder, os.path.dirname(__file__)):  # noqa: PTH110, PTH120, PTH121
            with open(path, encoding="utf-8") as code:  # noqa: PTH123
                exec(compile(code.read(), path, "exec"), {"__name__": "sitecustomize", "__file__": path})  # noqa: S102
            return


def main() -> None:
    path = os.environ.get(SOCKET)
    if path and wanted(sys.orig_argv[1:]):
        status = hand_over(path)
        if status is not None:
            end(status)
    customize()


def end(status: int) -> None:
    """As the command ended."""
    if status < 0:
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)
