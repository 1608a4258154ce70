"""Measurements that several processes add to, in one JSON file of bench/results."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.lab import ROOT


def runs_in(file: Path) -> list[Any]:
    """Every measurement so far; none where the file is not there yet."""
    runs: list[Any] = json.loads(file.read_bytes())["results"]["runs"] if file.exists() else []
    return runs


@contextmanager
def alone(name: str) -> Iterator[None]:
    """While no other process writes the results of this name."""
    path = ROOT / ".bench" / f"{name}.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
