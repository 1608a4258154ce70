"""What is measured: the same first build here, over one worker pinned to a core, and over two workers pinned to a core each.

Synthetic people as in `bench.erasure`, with a network and images large enough that a part and a cluster cost seconds. A real
Prefect server; every worker is `python -m flows.service.worker --limit 1` of the same folder, cold, with one thread. Server,
coordinator and worker of the pool `lmeraser` are not pinned: with two workers they share the workers' cores.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.erasure.ground import Ground
from bench.erasure.project import Place
from lmeraser.core.layout import Layout
from lmeraser.pipeline.files import locks_there
from lmeraser.pipeline.locks import read_outs

PARTS, CLUSTER = 8, 200  # parts; records for which a cluster is asked
CHANGES: dict[str, dict[str, Any]] = {
    "image": {"size": 64},
    "pretrain": {"kwargs": {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128], "stem_width": 16}},
    "tune": {"epochs": 6, "frame_px": 4},
}
STARTING = 180  # s that the service, and a worker, have
ENDING = 60  # s that they have to end
HERE = "here"
Row = dict[str, Any]


def say(text: str) -> None:
    sys.stderr.write(f"fleet: {text}\n")
    sys.stderr.flush()


def prepare(records: int, folder: Path) -> Place:
    """A project that is not built."""
    place = Place(Ground("synthetic", records, max(2, records // CLUSTER), "prompts"), folder)
    place.prepare()
    place.change({**CHANGES, "parts": [f"p{number:02d}" for number in range(PARTS)]})
    place.commit("Larger images and network")
    return place


def unbuild(place: Place) -> None:
    for lock in locks_there(place.root):
        lock.unlink()
    for name in ("artifacts", ".dvc/cache", ".dvc/tmp", "metrics"):
        shutil.rmtree(place.root / name, ignore_errors=True)


@contextmanager
def process(command: Sequence[str], place: Place, env: Mapping[str, str], log: Path, core: int | None = None) -> Iterator[None]:
    """A process that runs until the end of the block. Args: core: it and all that it starts stay there."""

    def pin() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's `&` starts it with SIGINT ignored
        if core is not None:
            os.sched_setaffinity(0, {core})

    with log.open("w") as stream:
        started = subprocess.Popen(
            [sys.executable, *command],
            cwd=place.root,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            preexec_fn=pin,  # noqa: PLW1509  (one thread here)
        )
        try:
            yield
        finally:
            started.send_signal(signal.SIGINT)
            try:
                started.wait(timeout=ENDING)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


def _until(log: Path, word: str) -> None:
    deadline = time.monotonic() + STARTING
    while word not in log.read_text(encoding="utf-8", errors="replace"):
        if time.monotonic() > deadline:
            raise SystemExit(f"bench.fleet: {log.stem} did not become ready in {STARTING} s")
        time.sleep(0.5)


@contextmanager
def served(place: Place) -> Iterator[dict[str, str]]:
    """A Prefect server with the project's deployments. Yields: the variables by which workers and coordinator find it."""
    log = place.folder / "serve.log"
    command = ["-m", "flows.service.supervisor", "--port", "0", "--warm", "0", "--workers", "0"]
    with process(command, place, place.environment(), log):
        _until(log, "end           Ctrl-C")
        server = json.loads((Layout(place.root).private_state / "server.json").read_bytes())
        home = str(place.folder / "prefect")
        yield place.environment() | {
            "PREFECT_API_URL": server["url"],
            "PREFECT_API_AUTH_STRING": server["auth"],
            "PREFECT_HOME": home,
        }


@contextmanager
def workers(place: Place, env: Mapping[str, str], cores: Sequence[int]) -> Iterator[None]:
    """A worker on each core."""
    with ExitStack() as stack:
        for core in cores:
            log = place.folder / f"worker-{core}.log"
            command = ["-m", "flows.service.worker", "--pool", "gpu", "--name", f"core-{core}", "--limit", "1"]
            stack.enter_context(process(command, place, env, log, core))
            _until(log, "started")
        _wait_for(env, len(cores))
        yield


def _asked(env: Mapping[str, str], path: str, body: Any) -> Any:
    auth = b64encode(env["PREFECT_API_AUTH_STRING"].encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {auth}"}
    asked = urllib.request.Request(env["PREFECT_API_URL"] + path, json.dumps(body).encode(), headers)  # noqa: S310  (loopback)
    with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
        return json.loads(answer.read())


def _wait_for(env: Mapping[str, str], count: int) -> None:
    """Until the server hears of exactly these workers: one that ended counts as online for a while."""
    deadline = time.monotonic() + STARTING
    while True:
        known = _asked(env, "/work_pools/gpu/workers/filter", {})
        if sum(worker["status"] == "ONLINE" for worker in known) == count:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"bench.fleet: the server does not hear of {count} workers of the pool gpu")
        time.sleep(2)


def _starts(env: Mapping[str, str], since: float) -> list[float]:
    """Seconds from the making of a run to its first line, of every run of stages that was made since."""
    from datetime import datetime

    runs = _asked(env, "/flow_runs/filter", {"flows": {"name": {"any_": ["run-stages"]}}, "limit": 200})
    moments = [[datetime.fromisoformat(run[key]).timestamp() for key in ("created", "start_time")] for run in runs]
    return sorted(start - made for made, start in moments if made >= since)


def build(place: Place, env: Mapping[str, str], where: str, cores: Sequence[int]) -> Row:
    """One first build. Returns: what the driver says, with load and outs."""
    unbuild(place)
    place.change({"service": {"fan_out": "workers" if cores else "here"}})
    load, since = os.getloadavg()[0], time.time()
    command = [sys.executable, "-m", "bench.fleet.driver"]
    done = subprocess.run(command, cwd=place.root, env=dict(env), stdout=subprocess.PIPE, text=True, check=True)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    row |= {"where": where, "workers": len(cores), "load": load, "outs": read_outs(place.root / "dvc.lock")}
    if cores:
        row["start"] = min(_starts(env, since))
    say(f"{where}: {row['wall']:.1f} s; " + ", ".join(f"{wave['kind']} {wave['wall']:.1f} s" for wave in row["waves"]))
    return row


def measure(records: int, rounds: int) -> list[Row]:
    """Builds here, over one worker and over two, `rounds` of each. Raises: SystemExit if their bytes differ."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("bench.fleet: it needs two cores, one for each worker")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="lmeraser-fleet-") as name:
        place = prepare(records, Path(name))
        rows.append(build(place, place.environment(), HERE, []))
        with served(place) as env:
            for _ in range(rounds):
                for chosen in (cores[:1], cores):
                    with workers(place, env, chosen):
                        rows.append(build(place, env, f"{len(chosen)} worker{'s' if len(chosen) > 1 else ''}", chosen))
    if any(row["outs"] != rows[0]["outs"] for row in rows):
        raise SystemExit("bench.fleet: a build over workers gave other bytes than the build here")
    return [{key: value for key, value in row.items() if key != "outs"} | {"artifacts": len(row["outs"])} for row in rows]
