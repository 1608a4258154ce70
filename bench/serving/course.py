"""What is measured: servers of a project under load, and an erasure while they are asked."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.erasure.project import Place
from bench.lab import ROOT
from bench.serving.load import Answer, Load
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params
from lmeraser.data.images import stored_png

STARTING_S = 120
SERVE = ["-m", "flows.cli", "serve", "--port", "0", "--rate", "0"]
KINDS = {
    "bare backbone, one pass an image": ["-m", "bench.serving.bare"],
    "one-pass mode": [*SERVE, "--one-pass"],
    "served model": SERVE,
}
LONGEST_S = 600.0  # s that an erasure may take
EDGE_S = 0.5  # s at the beginning of a load that do not count


@contextmanager
def server(place: Place, command: Sequence[str]) -> Iterator[int]:
    """The port of a server of the project."""
    environment = place.environment() | {"PYTHONPATH": os.pathsep.join((str(place.root), str(ROOT)))}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([sys.executable, *command], cwd=place.root, env=environment, stderr=log, stdout=log)
        try:
            deadline = time.monotonic() + STARTING_S
            while (port := _port(log.fileno())) is None:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("bench.serving: a server did not start")
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()
            process.wait()


def _port(log: int) -> int | None:
    text = os.pread(log, 4096, 0).decode(errors="replace")
    return int(text.partition("http://127.0.0.1:")[2].split()[0]) if "http://127.0.0.1:" in text else None


def photo(place: Place, folder: Path) -> Path:
    """An image of the size that the network takes."""
    image = load_params(Layout(place.root).params).image
    pixels = np.random.default_rng(0).integers(0, 256, (image.size, image.size, image.channels), dtype=np.uint8)
    path = folder / "photo.png"
    path.write_bytes(stored_png(pixels[..., 0] if image.channels == 1 else pixels))
    return path


def start_load(port: int, image: Path, clients: int, seconds: float, until_closed: bool = False) -> "subprocess.Popen[str]":
    """Args: until_closed: it ends when its standard input is closed."""
    command = [sys.executable, "-m", "bench.serving.load", str(port), str(image), "--clients", str(clients)]
    command += ["--seconds", str(seconds), *(["--until-closed"] if until_closed else [])]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def answers_of(generator: "subprocess.Popen[str]") -> list[Answer]:
    printed, _ = generator.communicate()
    if generator.returncode:
        raise SystemExit("bench.serving: the load generator failed")
    raw = json.loads(printed)
    return Load([tuple(answer) for answer in raw["answers"]], raw["versions"]).named()


def rates(answers: Sequence[Answer]) -> dict[str, Any]:
    """Throughput and latency of answers that began after the edge. Raises: SystemExit if one of them was refused."""
    if any(status != 200 for _, _, status, _ in answers):
        raise SystemExit("bench.serving: a request was refused")
    start = answers[0][0] + EDGE_S
    counted = [answer for answer in answers if answer[0] >= start]
    took = np.array([ended - begun for begun, ended, _, _ in counted])
    wall = max(ended for _, ended, _, _ in counted) - start
    p50, p99 = np.quantile(took, [0.5, 0.99])
    return {"a_second": len(counted) / wall, "p50_s": float(p50), "p99_s": float(p99), "answers": len(counted)}


def throughput(place: Place, clients: Sequence[int], seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Each kind of server under each load; kinds take turns, and the median round by throughput is told."""
    measured: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        image = photo(place, Path(name))
        for _ in range(rounds):
            for kind, command in KINDS.items():
                with server(place, command) as port:
                    answers_of(start_load(port, image, 1, 1.0))  # warm
                    for count in clients:
                        found = rates(answers_of(start_load(port, image, count, seconds)))
                        measured.setdefault((kind, count), []).append(found)
    middle = {key: sorted(runs, key=lambda run: float(run["a_second"]))[len(runs) // 2] for key, runs in measured.items()}
    return [{"server": kind, "clients": count, **run} for (kind, count), run in middle.items()]


def inside(place: Place) -> list[dict[str, Any]]:
    environment = place.environment() | {"PYTHONPATH": os.pathsep.join((str(place.root), str(ROOT)))}
    command = [sys.executable, "-m", "bench.serving.inside"]
    ran = subprocess.run(command, cwd=place.root, env=environment, capture_output=True, text=True, check=True)
    measured: list[dict[str, Any]] = json.loads(ran.stdout)
    return measured


@dataclass
class Moments:
    """When a request was accepted (its first commit to the ledger), and when it was in effect (the quarantine's pointer)."""

    layout: Layout
    accepted: float = 0.0
    in_effect: float = 0.0
    solved: float = 0.0

    def watch(self, over: threading.Event) -> None:
        ledger, pointer = self._ledger(), self._stamp(self.layout.quarantine)
        while not over.wait(0.0005):
            now = time.monotonic()
            if not self.accepted and self._ledger() != ledger:
                self.accepted = now
            if not self.in_effect and (made := self._stamp(self.layout.quarantine)) != pointer:
                self.in_effect, pointer = now, made
            elif self.in_effect and not self.solved and self._stamp(self.layout.quarantine) != pointer:
                self.solved = now

    def _stamp(self, path: Path) -> tuple[int, int]:
        try:
            state = path.stat()
        except FileNotFoundError:
            return 0, 0
        return state.st_ino, state.st_mtime_ns

    def _ledger(self) -> list[tuple[int, int]]:
        ledger = self.layout.ledger
        return [self._stamp(path) for path in (ledger, ledger.with_name(f"{ledger.name}-wal"))]


def erasure(place: Place, clients: int, warm: bool) -> dict[str, Any]:
    """One person is forgotten while clients ask; seconds after the request was accepted, and versions."""
    moments, over = Moments(Layout(place.root)), threading.Event()
    watcher = threading.Thread(target=moments.watch, args=(over,))
    (person,) = place.take(1)
    with tempfile.TemporaryDirectory() as name, server(place, SERVE) as port:
        image = photo(place, Path(name))
        generator = start_load(port, image, clients, LONGEST_S, until_closed=True)
        time.sleep(2)
        watcher.start()
        begun = time.monotonic()
        _, certified = place.lmeraser("forget", "--subject", person)
        ended = time.monotonic()
        over.set()
        watcher.join()
        time.sleep(1)
        answers = answers_of(generator)
    if certified["state"] != "certified" or answers[-1][1] < ended:
        raise SystemExit("bench.serving: the erasure was not certified while clients asked")
    before = {version for _, end, _, version in answers if end < begun}
    last = max(end for _, end, _, version in answers if version in before)
    late = sum(start > moments.in_effect and version in before for start, _, _, version in answers)
    return {
        "warm": warm,
        "clients": clients,
        "answers": len(answers),
        "refused": sum(status != 200 for _, _, status, _ in answers),
        "versions": len({version for *_, version in answers}),
        "command_to_accepted_s": moments.accepted - begun,
        "accepted_to_last_old_s": last - moments.accepted,
        "in_effect_to_last_old_s": last - moments.in_effect,
        "begun_in_effect_but_old": late,
        "command_to_certified_s": ended - begun,
        "longest_answer_s": max(end - start for start, end, _, _ in answers),
    }
