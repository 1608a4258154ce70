"""What a command costs, with every process that has a part in it. Linux alone: it reads /proc.

The command is started by a process of its own, which is this file as a program (`python -I -S meter.py REPORT COMMAND...`) and
holds a few MB: what a process was before it became another program counts in its peak, so a bench that has imported torch would
be the peak of all that it starts. The kernel adds what ended children took to the parent that waited for them: processor time
and peak by wait4(2), bytes by /proc/self/io. Processes that stay warm are read before and after, with the children that they
waited for; their peak, and that of children not waited for yet, by looking often.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

LOOK = 0.05  # s between two looks at the peaks of warm processes' children
SOON = 0.005  # s between two looks for a file
SETTLE = 0.5  # s that a warm process has for what it does after its last answer
RESET_PEAK = "5"  # proc(5), clear_refs: VmHWM begins anew
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Spent:
    """Attributes: cpu: s of processor, user and system; wall: s; read, written: bytes, also through pipes and sockets and from
    the page cache; peak: bytes of memory of the largest process."""

    cpu: float
    wall: float
    read: int
    written: int
    peak: int


class Usage(NamedTuple):
    """Of one process so far, with the children that it waited for: processor seconds, and bytes."""

    cpu: float
    read: int
    written: int


def watch(report: Path, command: Sequence[str]) -> None:
    """Run a command to its end and write what it took. Its standard streams are this process's."""
    before = usage_of("self")
    start = time.perf_counter()
    running: list[subprocess.Popen[bytes]] = []
    told = threading.Event()

    def interrupt(*_: object) -> None:
        told.set()
        for each in running:
            each.send_signal(signal.SIGINT)

    # Before the command starts, which may be faster than this process. SIG_IGN would be passed on to it.
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, lambda *_: None)  # a terminal tells the command as well
    process = subprocess.Popen(list(command))
    running.append(process)
    if told.is_set():
        process.send_signal(signal.SIGINT)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    after = usage_of("self")
    spent = {
        "cpu": used.ru_utime + used.ru_stime,
        "wall": wall,
        "read": after.read - before.read,
        "written": after.written - before.written,
        "peak": used.ru_maxrss * 1024,
    }
    report.write_text(json.dumps({"code": os.waitstatus_to_exitcode(status), "spent": spent}))


def usage_of(process: int | str) -> Usage:
    """Raises: OSError if there is no such process."""
    folder = Path("/proc") / str(process)
    fields = folder.joinpath("stat").read_text().rpartition(") ")[2].split()
    io = dict(line.split(": ") for line in folder.joinpath("io").read_text().splitlines())
    return Usage(sum(map(int, fields[11:15])) / TICKS, int(io["rchar"]), int(io["wchar"]))  # utime, stime, cutime, cstime


def _peak_of(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _descendants(process: int) -> list[int]:
    """A process and all that it started and that still run."""
    found = [process]
    for parent in found:  # grows meanwhile
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, task.read_text().split())
    return found


class Peaks(threading.Thread):
    """The largest that warm processes and what they start get."""

    def __init__(self, warm: Sequence[int]) -> None:
        super().__init__(daemon=True)
        self.warm, self.largest, self.done = warm, 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(LOOK):
            self.look()

    def look(self) -> None:
        for process in (each for parent in self.warm for each in _descendants(parent)):
            with suppress(OSError):  # it has ended
                self.largest = max(self.largest, _peak_of(process))


class Appearance(threading.Thread):
    """When a file appears, or another takes its place: s since it was looked for; None: it did not."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path, self._done = path, threading.Event()
        self.seconds: float | None = None
        self._before, self._start = self._there(), time.perf_counter()

    def _there(self) -> int | None:
        try:
            return self.path.stat().st_ino
        except OSError:
            return None

    def run(self) -> None:
        while not self._done.wait(SOON):
            if self._there() not in (None, self._before):
                self.seconds = time.perf_counter() - self._start
                return

    def __enter__(self) -> "Appearance":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


def _run(program: Sequence[str], folder: Path, environment: dict[str, str]) -> tuple[int, str, str]:
    """Exit status and both outputs. If the bench is interrupted, the command is as well, and ends what it has started."""
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(program, cwd=folder, env=environment, **pipes) as process:
        try:
            printed, complaint = process.communicate()
        except BaseException:
            process.terminate()
            process.communicate()
            raise
        return process.returncode, printed, complaint


def measure(command: Sequence[str], folder: Path, environment: dict[str, str], warm: Sequence[int] = ()) -> tuple[Spent, str]:
    """Run a command in a folder. Returns: what it took, and what it printed. Raises: SystemExit with its last words if it fails.

    Args: warm: processes that may work for it.
    """
    peaks = Peaks(warm)
    before = [usage_of(process) for process in warm]
    for process in warm:
        with suppress(OSError):  # not every kernel can; then the peak is that of its whole life
            Path(f"/proc/{process}/clear_refs").write_text(RESET_PEAK)
    with tempfile.TemporaryDirectory(prefix="lmeraser-meter-") as name:
        report = Path(name) / "report.json"
        peaks.start()
        program = [sys.executable, "-I", "-S", __file__, str(report), *command]
        code, printed, complaint = _run(program, folder, environment)
        found: dict[str, Any] = json.loads(report.read_bytes()) if report.exists() else {"code": code or 1}
    if warm:
        time.sleep(SETTLE)
    peaks.done.set()
    peaks.join()
    if found["code"]:
        shown = " ".join(word[:40] for word in command[1:6])
        raise SystemExit(f"bench.erasure: {shown} failed ({found['code']}):\n{complaint[-2000:]}")
    spent = Spent(**found["spent"])
    if not warm:
        return spent, printed
    try:
        peaks.look()
        after = [usage_of(process) for process in warm]
    except OSError as error:
        raise SystemExit("bench.erasure: a warm process ended while it was measured; see its log in .lmeraser/logs") from error
    pairs = list(zip(before, after, strict=True))
    whole = Spent(
        cpu=spent.cpu + sum(new.cpu - old.cpu for old, new in pairs),
        wall=spent.wall,
        read=spent.read + sum(new.read - old.read for old, new in pairs),
        written=spent.written + sum(new.written - old.written for old, new in pairs),
        peak=max(spent.peak, peaks.largest),
    )
    return whole, printed


if __name__ == "__main__":
    watch(Path(sys.argv[1]), sys.argv[2:])
