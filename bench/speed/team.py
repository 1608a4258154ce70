"""Worker processes that do one job at a time, all of them at once, and what others use of the machine meanwhile."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from bench.lab import ROOT
from bench.speed.report import QUIET

CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Spent:
    """What a job took. wall: seconds until all had done it; cpu: seconds of processor of all members together; foreign: share
    of the machine's cores that others used meanwhile (the hypervisor's steal included)."""

    wall: float
    cpu: float
    foreign: float


def _ticks(fields: Sequence[str]) -> float:
    return sum(map(int, fields)) / os.sysconf("SC_CLK_TCK")


def _busy() -> float:
    """Seconds of processor that anybody has used since the start: user, nice, system, irq, softirq, steal (proc(5))."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    return _ticks([*fields[1:4], *fields[6:9]])


class Team:
    """Worker processes that do one job at a time, all of them at once."""

    def __init__(self, kind: str, size: int, threads: int, args: argparse.Namespace) -> None:
        command = [sys.executable, "-m", "bench.speed", "--worker", kind, "--threads", str(threads), "--batch", str(args.batch)]
        command += ["--images", str(args.images), "--epochs", str(args.epochs)]
        self.members = [
            subprocess.Popen(
                [*command, "--seed", str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, cwd=ROOT,
            )
            for seed in range(size)
        ]  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        for member in self.members:
            if not cast("IO[str]", member.stdout).readline():
                raise SystemExit("bench.speed: a worker died; run it with --worker to see why")

    def _cpu(self) -> float:
        stats = [Path(f"/proc/{member.pid}/stat").read_text(encoding="ascii") for member in self.members]
        return sum(_ticks(stat.rsplit(")", 1)[1].split()[11:13]) for stat in stats)

    def do(self, job: str) -> Spent:
        cpu, busy, start = self._cpu(), _busy(), time.perf_counter()
        for member in self.members:
            pipe = cast("IO[str]", member.stdin)
            pipe.write(job + "\n")
            pipe.flush()
        self._wait()
        wall, own = time.perf_counter() - start, self._cpu() - cpu
        return Spent(wall, own, max(0.0, _busy() - busy - own) / wall / CORES)

    def close(self) -> None:
        for member in self.members:
            cast("IO[str]", member.stdin).close()
            member.wait()


def wait_for_quiet(limit_s: float) -> bool:
    """Until others use less than QUIET of the cores, or the limit: a gang of threads is hurt by them far more than we are."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        busy, start = _busy(), time.monotonic()
        time.sleep(0.5)
        if (_busy() - busy) / (time.monotonic() - start) / CORES < QUIET:
            return True
    return False
