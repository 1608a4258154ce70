"""Servers of a project as processes of their own, and their addresses."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox import Sandbox


@contextmanager
def running(project: Sandbox, log: Path, *command: str) -> Iterator[str]:
    """The address of a server of the project; it must end with 0 when it is told to."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *command, "--port", "0"],
            cwd=project.root,
            env=os.environ | {"PYTHONPATH": str(project.root)},  # not preloaded: signals go to the process itself
            stdout=stream,
            stderr=stream,
        )
        try:
            deadline = time.monotonic() + 180
            while not (found := re.search(r"https?://127\.0\.0\.1:\d+", log.read_text())):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield found.group()
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(timeout=40)
        assert status == 0, log.read_text()
