"""Commands of sandboxes start from a process that has imported torch already: `preloaded/`, a tenth of the time each.

What a command does is unchanged: its own folder's code, its own variables, folder and descriptors; only what it imports from
outside is there before it. Tests about processes themselves (kills, plain `dvc repro`, instruction sets) start cold, and with
`LMERASER_TESTS_COLD=1`, as in `make campaign`, all do.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

FOLDER = Path(__file__).with_name("preloaded")
SOCKET = "LMERASER_TESTS_PRELOADED"
COLD = {SOCKET: ""}  # variables of a command that must be a process of its own from the beginning
# The first: else each compiles all code. The second: torch sets it where a test imported it, and a settled process has it not.
DROPPED = ("PYTHONDONTWRITEBYTECODE", "TORCHINDUCTOR_CACHE_DIR")
START_S = 300

_listening: list[str] = []  # where this worker's servers listen; the last one is asked


def cold() -> bool:
    """Whether every process starts from nothing and every size is the real one: in `make campaign`."""
    return bool(os.environ.get("LMERASER_TESTS_COLD"))


def variables(given: Mapping[str, str]) -> dict[str, str]:
    """The variables of a command, with those that hand it to the server, unless it has a `sitecustomize` of its own."""
    kept = {name: value for name, value in given.items() if name not in DROPPED}
    folders = [folder for folder in kept.get("PYTHONPATH", "").split(os.pathsep) if folder]
    if not _listening or any((Path(folder) / "sitecustomize.py").exists() for folder in folders):
        return kept
    return {SOCKET: _listening[-1]} | kept | {"PYTHONPATH": os.pathsep.join([str(FOLDER), *folders])}


@contextmanager
def server(folder: Path, pins: Mapping[str, str] = MappingProxyType({})) -> Iterator[None]:
    """Listen in a folder until the end of the block; where the system cannot, or must not, every command starts cold.

    Args: pins: variables that libraries read when they are imported; it serves commands with these alone.
    """
    if cold() or not hasattr(os, "pidfd_open"):
        yield
        return
    short = Path(tempfile.mkdtemp(prefix="lmt-"))  # a socket's path has at most 100 characters
    path = short / "socket"
    with (folder / "preloaded.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(FOLDER / "server.py"), str(path), str(os.getpid())],
            env=os.environ | dict(pins),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        _listening.append(str(path))
        try:
            deadline = time.monotonic() + START_S
            while not path.exists():
                assert process.poll() is None, (folder / "preloaded.log").read_text()
                assert time.monotonic() < deadline, "the preloaded process does not come up"
                time.sleep(0.05)
            yield
        finally:
            _listening.remove(str(path))
            process.terminate()
            process.wait()
            shutil.rmtree(short)
