"""Kills: requests are submitted, and whatever carries them out is killed at step boundaries and at random times, again and again.

    python tests/chaos/campaign.py --kills 200 --seed 0            # coordinator, its stages, dvc, warm process
    python tests/chaos/campaign.py --service 20 --seed 0           # flow, worker, server, warm process of a real service

Between kills a file of the state before, or a part of the index of objects, is lost now and then.

After each episode: no accepted request lost, none certified early or twice, `dvc.lock` outs equal those of an undisturbed run,
the certificates' chain whole, every store clean. Prints one line an episode and one JSON object at the end.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sandbox import Sandbox, make_project

from lmeraser.pipeline.locks import read_outs

STEPS = ("received", "quarantined", "removed", "retrained", "verified", "purged", "certified")
LONGEST = 14.0  # s; a small erasure takes about this long
KILLS_AN_EPISODE = 20


@dataclass
class Tally:
    """What was done and seen."""

    kills: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    episodes: int = 0

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            self.problems.append(what)
            print(f"PROBLEM: {what}", flush=True)


def built(folder: Path) -> Sandbox:
    project = make_project(folder / "built")
    done = project.lmeraser("build")
    if done.returncode:
        raise SystemExit(done.stderr)
    return project


def copy(project: Sandbox, target: Path) -> Sandbox:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(project.root, target, symlinks=True)
    return Sandbox(target)


def states(project: Sandbox) -> dict[str, str]:
    """Read straight from the ledger's file: a command would take a second."""
    with suppress(sqlite3.Error):
        ledger = sqlite3.connect(f"file:{project.root}/.lmeraser/ledger.db?mode=ro", uri=True, timeout=5)
        try:
            return dict(ledger.execute("SELECT request_id, state FROM requests").fetchall())
        finally:
            ledger.close()
    return {}


def descendants(pid: int) -> list[int]:
    """Children and their children, deepest last."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.name))
    pids, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        pids += below
        waiting += below
    return pids


def command_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def kill(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def strike(pid: int, what: str) -> str | None:
    """Kill one process, or all of them as a machine's end would. Returns what was hit."""
    below = descendants(pid)
    if what == "everything":
        for target in [pid, *reversed(below)]:
            kill(target)
        return what
    if what == "coordinator":
        return what if kill(pid) else None
    wanted = {"stage": ("stages.",), "dvc": ("-m dvc", "-m flows.dvc.record")}[what]
    hit = next((child for child in below if any(name in command_of(child) for name in wanted)), None)
    return what if hit and kill(hit) else None


def start(project: Sandbox, *arguments: str) -> "subprocess.Popen[bytes]":
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=project.root,
        env=os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(project.root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def boundary_of(before: dict[str, str], now: dict[str, str]) -> int:
    """How far the request got that moved furthest (index into `STEPS`); -1 where none moved."""
    moved = (state for request, state in now.items() if state != before.get(request, state) and state in STEPS)
    return max(map(STEPS.index, moved), default=-1)


def one_kill(project: Sandbox, dice: random.Random, tally: Tally, longest: float = LONGEST) -> None:
    """Start `lmeraser resume` and kill something: right after a step drawn beforehand was stored, or at a random time.

    Args: longest: s after which everything is killed.
    """
    process = start(project, "-m", "flows.cli", "resume")
    boundary = dice.choice(STEPS[1:]) if dice.random() < 0.7 else None
    what = dice.choice(["everything", "everything", "coordinator", "stage", "dvc"])
    deadline = time.monotonic() + (longest if boundary or what in ("stage", "dvc") else dice.uniform(0.2, longest))
    before = states(project)
    hit: str | None = None
    while process.poll() is None and hit is None:
        now = states(project) if boundary else before
        due = time.monotonic() >= deadline
        at_boundary = boundary is not None and boundary_of(before, now) >= STEPS.index(boundary)
        if at_boundary or due or (not boundary and what in ("stage", "dvc") and dice.random() < 0.01):
            where = f"boundary {STEPS[boundary_of(before, now)]}" if at_boundary else "random"
            hit = strike(process.pid, what if not due else "everything")
            if hit:
                tally.kills[f"{hit}, {where}"] += 1
        time.sleep(0.005)
    if what in ("stage", "dvc"):
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)  # it sees its child die and ends by itself
    kill(process.pid)
    process.wait()
    certified = [request for request, state in states(project).items() if state == "certified"]
    early = [request for request in certified if not certificate_of(project, request)]
    tally.check(not early, "a request is certified and has no certificate")


def lose(project: Sandbox, dice: random.Random, tally: Tally) -> None:
    """Now and then: a file of the state before, from which stages are updated; or the index of objects, cut."""
    state = project.root / ".lmeraser"
    before = sorted(path for path in state.glob("*.before/**/*") if path.is_file())
    if before and dice.random() < 0.3:
        dice.choice(before).unlink()  # a link: the file itself stays where it is used
        tally.lost["a file of the state before"] += 1
    index = state / "objects.index"
    if index.is_file() and dice.random() < 0.2:
        index.write_bytes(index.read_bytes()[: dice.randrange(index.stat().st_size + 1)])
        tally.lost["the index of objects"] += 1


def certificate_of(project: Sandbox, request_id: str) -> bool:
    return bool(list((project.root / "certificates").glob(f"*{request_id}.json")))


def verdict(project: Sandbox, accepted: list[str], outs: dict[str, str], tally: Tally) -> None:
    """What must hold when everything is over."""
    state_of = states(project)
    certified = all(state_of.get(request) == "certified" for request in accepted)
    tally.check(certified, f"not all certified: {sorted(state_of.values())}")
    files = sorted((project.root / "certificates").glob("*.json"))
    tally.check(sorted(path.name[6:-5] for path in files) == sorted(accepted), "not one certificate for each request")
    checked = project.lmeraser("verify", *map(str, files), "--head", str(project.root / "certificates" / "HEAD"))
    tally.check(checked.returncode == 0, f"the chain: {checked.stderr[-200:]}")
    tally.check(read_outs(project.root / "dvc.lock") == outs, "dvc.lock differs from the undisturbed run")
    scanned = project.lmeraser("audit", "--stores", "--json")
    tally.check(scanned.returncode == 0, f"stores: {scanned.stdout[-300:]} {scanned.stderr[-300:]}")
    stale = project.python("-m", "dvc", "status")
    tally.check(stale.stdout.strip().endswith("up to date."), f"the pipeline is stale: {stale.stderr[-200:]}")


def reference(project: Sandbox, folder: Path, people: list[str]) -> dict[str, str]:
    """The outs of a run that nobody disturbs."""
    calm = copy(project, folder / "calm")
    calm.json("forget", "--subject", *people)
    return read_outs(calm.root / "dvc.lock")


def episode(project: Sandbox, folder: Path, dice: random.Random, kills: int, tally: Tally) -> None:
    """Requests come in, one or two at a time, and are killed on their way again and again; then peace."""
    people = dice.sample(project.people(), 12)
    victim = copy(project, folder / "victim")
    warm: dict[str, subprocess.Popen[bytes]] = {}
    if dice.random() < 0.3:
        sockets = victim.root / ".lmeraser" / "warm"
        sockets.mkdir(parents=True, mode=0o700)
        warm["warm process"] = start(victim, "-m", "stages.runtime.warm", str(sockets / "0.sock"))
        warm["forking process"] = start(victim, "-m", "flows.forks.server", str(sockets / "dvc.fork"))
    accepted: list[str] = []
    erased: list[str] = []
    goal = tally.kills.total() + kills
    while tally.kills.total() < goal and (people or not over(victim, accepted)):
        if over(victim, accepted):
            for _ in range(dice.choice([1, 2])):
                some = [people.pop() for _ in range(min(len(people), dice.choice([1, 2])))]
                if some:
                    accepted.append(victim.json("submit", "--subject", *some)["request_id"])
                    erased += some
        one_kill(victim, dice, tally)
        lose(victim, dice, tally)
        if warm and dice.random() < 0.1:
            what = dice.choice(list(warm))
            process = warm.pop(what)
            tally.kills[f"{what}, random"] += kill(process.pid)
            process.wait()
    peace = victim.lmeraser("resume")
    tally.check(peace.returncode == 0, f"resume: {peace.stderr[-300:]}")
    verdict(victim, accepted, reference(project, folder, erased), tally)
    for process in warm.values():
        kill(process.pid)
        process.wait()
    tally.episodes += 1


def over(project: Sandbox, accepted: list[str]) -> bool:
    """Whether nothing is open."""
    state_of = states(project)
    return all(state_of.get(request) == "certified" for request in accepted)


def service_episode(project: Sandbox, folder: Path, dice: random.Random, kills: int, tally: Tally) -> None:
    """A real server with its workers: one of their processes is killed every few seconds while requests come in."""
    from service import served, wait

    people = dice.sample(project.people(), 4)
    outs = reference(project, folder, people)
    victim = copy(project, folder / "victim")
    kinds = {
        "server": "prefect server start",
        "worker": "flows.service.worker --pool lmeraser",
        "flow": "prefect.engine",
        "warm process": "stages.runtime.warm",
        "forking process": "flows.forks.server",
        "stage": "stages.runtime.chain",
        "dvc": "-m dvc",
    }
    with served(victim) as service:
        accepted = [victim.json("submit", "--subject", person)["request_id"] for person in people]
        left, deadline = kills, time.monotonic() + 90 * kills
        while left and time.monotonic() < deadline and not over(victim, accepted):
            kind = dice.choice(list(kinds))
            running = [pid for pid in descendants(service.process.pid) if kinds[kind] in command_of(pid)]
            if running and kill(dice.choice(running)):
                tally.kills[f"{kind} of the service, random"] += 1
                left -= 1
            time.sleep(dice.uniform(0.5, 6))
        wait(lambda: over(victim, accepted), 400, "every certificate")
    verdict(victim, accepted, outs, tally)
    tally.episodes += 1


def campaign(kills: int, service: int, seed: int) -> dict[str, Any]:
    """Run until so many kills were done; returns what was seen."""
    dice, tally = random.Random(seed), Tally()
    start_time = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lmeraser-chaos-") as name:
        folder = Path(name)
        project = built(folder)
        while tally.kills.total() < kills:
            episode(project, folder, dice, min(KILLS_AN_EPISODE, kills - tally.kills.total()), tally)
            print(f"episode {tally.episodes}: {tally.kills.total()} kills, {len(tally.problems)} problems", flush=True)
        already = tally.kills.total()
        while tally.kills.total() < already + service:
            service_episode(project, folder, dice, min(6, already + service - tally.kills.total()), tally)
            print(f"service episode: {tally.kills.total()} kills, {len(tally.problems)} problems", flush=True)
    return {
        "kills": tally.kills.total(),
        "by": dict(sorted(tally.kills.items())),
        "lost": dict(sorted(tally.lost.items())),
        "episodes": tally.episodes,
        "problems": tally.problems,
        "seconds": round(time.monotonic() - start_time),
        "seed": seed,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Kill whatever carries requests out, and check that nothing is lost.")
    parser.add_argument("--kills", type=int, default=0, help="of `lmeraser resume` and what it starts")
    parser.add_argument("--service", type=int, default=0, help="of the processes of a real service")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report = campaign(options.kills, options.service, options.seed)
    print(json.dumps(report, indent=2))
    sys.exit(1 if report["problems"] else 0)
