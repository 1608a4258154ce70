"""What the pipeline costs beside the stages' own work, by the number of slots: processor seconds of real commands.

Every Python process that a command starts says at its end what it was, what processor time it took (a `sitecustomize.py` on
PYTHONPATH) and what its children took to their last instruction. Overhead is the sum of those that ran no stage: DVC, the
coordinator, the scan. A stage's process goes on after its last word, for torch frees memory: where a process (DVC) had no
children but stages, what these took beyond their words is theirs. What is left of the command's whole time (wait4) is given
beside the overhead.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import yaml

from bench.lab import ROOT
from bench.lab.report import table
from flows.audit.rebuild import copy_code
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params
from lmeraser.erase.erased import ErasedList, key_path, load_or_create_key
from lmeraser.sources import open_source

SPY = """
import atexit, json, os, resource, sys
def tell():
    own, ended = (sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    usage = {"argv": sys.orig_argv[:4], "cpu": own, "children": ended, "process": os.getpid(), "parent": os.getppid()}
    line = json.dumps(usage) + "\\n"
    handle = os.open(os.environ["LMERASER_BENCH_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line.encode())
atexit.register(tell)
"""
SMALL: dict[str, dict[str, Any]] = {
    "pretrain": {"epochs": 1, "kwargs": {"layers": [1, 1, 1, 1], "channels": [8, 16, 16, 32], "stem_width": 8}},
    "projection": {"dim": 64},
    "tune": {"epochs": 1, "frame_px": 0},
    "evaluate": {"linear_head": False},
}


@dataclass(frozen=True)
class Spent:
    """Processor seconds. Attributes: outside: of processes that ran no stage; stages: of those that did, with their ends where
    these are known; untold: the rest; ran: how many processes ran stages."""

    outside: float
    stages: float
    untold: float
    ran: int


class Process(TypedDict):
    """What a Python process says at its end (see SPY): seconds of processor of its own, and of children that it waited for."""

    argv: list[str]
    cpu: float
    children: float
    process: int
    parent: int


class Run(TypedDict):
    """`commands`: by command, a `Spent`."""

    slots: int
    clusters: int
    commands: dict[str, dict[str, float]]


def attribute(processes: Sequence[Process], total: float) -> Spent:
    """Divide a command's processor seconds between its stages and the rest.

    Args:
        processes: those that said something; total: of the command and everything that it waited for.
    """

    def is_stage(process: Process) -> bool:
        return any(word.startswith("stages.") for word in process["argv"])

    stages = sum(process["cpu"] for process in processes if is_stage(process))
    outside = sum(process["cpu"] for process in processes) - stages
    for parent in processes:
        children = [process for process in processes if process["parent"] == parent["process"]]
        if children and all(is_stage(child) for child in children):
            stages += parent["children"] - sum(child["cpu"] for child in children)
    ran = sum(map(is_stage, processes))
    return Spent(round(outside, 2), round(stages, 2), round(total - outside - stages, 2), ran)


class Bench:
    """A project of so many slots, and commands in it that are measured."""

    def __init__(self, folder: Path, slots: int) -> None:
        self.root = folder / "project"
        self.spy = folder / "spy"
        self.spy.mkdir(parents=True)
        (self.spy / "sitecustomize.py").write_text(SPY)
        copy_code(ROOT, self.root)
        self.set_params(**SMALL)
        self.lmeraser("slots", str(slots))
        # Each record a unit, so that there are enough leaves; one record in a cluster where the tree allows it.
        self.set_params(skeleton={"leaves": min(slots, 400)}, cluster={"n_max": 1, "unit": "record"})
        git = ["git", "-C", str(self.root), "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
        subprocess.run([*git, "add", "--all"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", "bench"], check=True)

    def set_params(self, **sections: dict[str, Any]) -> None:
        path = self.root / "params.yaml"
        raw = yaml.safe_load(path.read_text())
        for name, changes in sections.items():
            raw[name] |= changes
        path.write_text(yaml.safe_dump(raw, sort_keys=False))

    def run(self, *command: str) -> Spent:
        log = self.spy / "log"
        log.unlink(missing_ok=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        own = {"PATH": path, "PYTHONPATH": f"{self.spy}{os.pathsep}{self.root}", "LMERASER_BENCH_LOG": str(log)}
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.root,
            env=os.environ | own | {"DVC_NO_ANALYTICS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"bench.scale: {' '.join(command)} failed:\n{done.stderr[-2000:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        total = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return attribute([json.loads(line) for line in log.read_text().splitlines()], total)

    def lmeraser(self, *arguments: str) -> Spent:
        return self.run("-m", "flows.cli", *arguments)

    def dvc(self, *arguments: str) -> Spent:
        return self.run("-m", "dvc", *arguments)

    def people(self) -> list[str]:
        """Private people of one record each: one cluster is trained again."""
        rows = open_source(load_params(self.root / "params.yaml").source, self.root).table()
        count = rows.loc[rows["visibility"] == "private"].groupby("subject")["split"].agg(["size", "first"])
        return sorted(count[(count["size"] == 1) & (count["first"] == "train")].index)

    def erase(self, person: str) -> None:
        """Put a person on the list, as a request does, and nothing else."""
        layout = Layout(self.root)
        layout.private_state.mkdir(exist_ok=True, mode=0o700)
        key = load_or_create_key(key_path(layout.private_state))
        ErasedList.read(layout.erased).add([key.pseudonym(person)], key).write(layout.erased)


def measure(slots: int, plain: bool) -> Run:
    """Every command for one number of slots."""
    with tempfile.TemporaryDirectory(prefix="lmeraser-scale-") as name:
        bench = Bench(Path(name), slots)
        people = bench.people()
        commands = {"warm build": bench.lmeraser("build"), "dvc repro, nothing to do": bench.dvc("repro", "--quiet")}
        bench.erase(people[0])
        commands["dvc repro after one deletion"] = bench.dvc("repro", "--quiet")
        commands["lmeraser forget"] = bench.lmeraser("forget", "--subject", people[1])
        clusters = len(json.loads((bench.root / "artifacts" / "cluster" / "clusters.json").read_bytes()))
        if plain:
            # Few clusters: an empty slot costs DVC what a full one does, and its own process little.
            bench.set_params(skeleton={"leaves": 16})
            for path in ("artifacts", ".dvc/cache", ".dvc/tmp"):
                shutil.rmtree(bench.root / path)
            for lock in [bench.root / "dvc.lock", *bench.root.glob("tune/*/dvc.lock")]:
                lock.unlink(missing_ok=True)
            commands["dvc repro, first build"] = bench.dvc("repro", "--quiet")
        return {"slots": slots, "clusters": clusters, "commands": {name: asdict(spent) for name, spent in commands.items()}}


COMMANDS = (
    "warm build",
    "dvc repro, first build",
    "dvc repro, nothing to do",
    "dvc repro after one deletion",
    "lmeraser forget",
)


def markdown(runs: Sequence[Run]) -> list[str]:
    def cell(run: Run, name: str) -> str:
        spent = run["commands"].get(name)
        return f"{spent['outside']:.1f} + {spent['untold']:.1f} ({spent['stages']:.1f})" if spent else "not measured"

    rows = [[run["slots"], run["clusters"], *(cell(run, name) for name in COMMANDS)] for run in runs]
    note = (
        "Processor seconds of the processes that ran no stage + what no process told (the ends of such processes and, for "
        "`warm build` and `lmeraser forget`, of stages, so the sum is an upper bound); in brackets those of the stages. "
        "scikit-learn's digits, a tiny backbone, head alone, one epoch, each record a unit: the stages do little, and an empty "
        "slot costs DVC what a full one does (the plain first build has at most 16 clusters). The deleted person has one "
        "record. `warm build` is `lmeraser build` from nothing; `lmeraser forget` is the whole way of a request, with purge and "
        "scan."
    )
    return ["## Overhead by slots", note, table(["slots", "clusters", *(f"`{name}`" for name in COMMANDS)], rows)]
