"""A project that is measured, as a user has it: a git repository with DVC, keys and the code as it is here; commands in it."""

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bench.erasure.ground import (
    Ground,
    manifest_of,
    params_of,
    people_of,
    read_manifest,
    write_manifest,
    write_newcomers,
    write_source,
)
from bench.erasure.meter import Spent, measure
from bench.lab import ROOT
from flows import git, processes
from flows.audit.rebuild import copy_code
from flows.project import Project
from flows.service.supervisor import Service, start_warm
from lmeraser.core.code import code_digest
from lmeraser.core.layout import Layout
from lmeraser.core.own_code import PROJECT_VARIABLE
from lmeraser.core.params import IN_ROOT, load_params
from lmeraser.sources import open_source

STARTING = 180  # s that warm processes have to be ready
BYTES_A_RECORD = 16_000  # on disk: a file's block, and the parts in project and cache
# All that a stage `tune` loads before its first slot.
LOADING = """
from pathlib import Path
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params
from stages.tune import train
layout = Layout.find(Path.cwd())
train({}, layout, load_params(layout.params))
"""


def say(text: str) -> None:
    sys.stderr.write(f"erasure: {text}\n")
    sys.stderr.flush()


@dataclass
class Progress:
    """How far a project was used. Attributes: people: who left; additions: that came."""

    people: int = 0
    additions: int = 0


class Place:
    """A folder with a project and its people's images."""

    def __init__(self, ground: Ground, folder: Path) -> None:
        self.ground, self.folder = ground, folder
        self.root = folder / "project"
        self.people = folder / "people"
        self.progress = Progress()
        self.built = self._state.exists()
        if self.built:
            self.progress = Progress(**json.loads(self._state.read_bytes()))
            if code_digest(self.root) != code_digest(ROOT):
                raise SystemExit(f"bench.erasure: --keep: {folder.name} was built by other code; delete it and retry")

    @property
    def _state(self) -> Path:
        return self.folder / "progress.json"

    def save(self) -> None:
        self._state.write_text(json.dumps(asdict(self.progress)))

    # commands

    def environment(self) -> dict[str, str]:
        """Of commands and of warm processes: the project's own code, and no service that somebody else runs."""
        foreign = ("PREFECT_", "LMERASER_", "PYTHONDONTWRITEBYTECODE")  # the last: each process would compile all code again
        own = {name: value for name, value in processes.base_environment().items() if not name.startswith(foreign)}
        return own | {"PYTHONPATH": str(self.root), PROJECT_VARIABLE: str(self.root), "DVC_NO_ANALYTICS": "1"}

    def run(self, *arguments: str, warm: Sequence[int] = ()) -> tuple[Spent, str]:
        """A Python command, measured."""
        return measure([sys.executable, *arguments], self.root, self.environment(), warm)

    def lmeraser(self, *arguments: str, warm: Sequence[int] = ()) -> tuple[Spent, dict[str, Any]]:
        """A command of lmeraser, measured; and its JSON."""
        spent, printed = self.run("-m", "flows.cli", *arguments, "--json", warm=warm)
        answer: dict[str, Any] = json.loads(printed)
        return spent, answer

    def commit(self, message: str) -> None:
        git.commit_all(self.root, "bench", "bench@localhost", message)

    # how it is made and changed: as a user does it, not measured

    def prepare(self) -> None:
        """Images, manifest, and a clone with params of its own; nothing is built."""
        _require_space(self.ground, self.folder)
        say(f"{self.ground.name}: writing images and project")
        params = params_of(self.ground, write_source(self.ground, self.people))
        self.root.mkdir()
        copy_code(ROOT, self.root)
        shutil.rmtree(self.root / "tests")  # their frozen archives hold some of the digits' images: a scan finds them there
        self._write_params(params.model_dump(mode="json"))
        if self.ground.slots > IN_ROOT:
            self.lmeraser("slots", str(self.ground.slots))
            self.change({"skeleton": {"leaves": self.ground.slots}})
        self.commit("A project")

    def change(self, changes: Mapping[str, Any]) -> None:
        """Change params.yaml: of a section what is named, else the whole value."""
        raw = yaml.safe_load((self.root / "params.yaml").read_text(encoding="utf-8"))
        for name, value in changes.items():
            raw[name] = raw[name] | value if isinstance(value, dict) else value
        self._write_params(raw)

    def _write_params(self, raw: dict[str, Any]) -> None:
        (self.root / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")

    def add_newcomers(self, folder: Path) -> None:
        """Put new people's images and rows to the source."""
        shutil.copytree(folder, self.people, ignore=shutil.ignore_patterns("manifest.*"), dirs_exist_ok=True)
        manifest = manifest_of(self.people)
        rows = [read_manifest(manifest), read_manifest(manifest_of(folder))]
        write_manifest(manifest, pd.concat(rows, ignore_index=True))

    @contextmanager
    def newcomers(self) -> Iterator[Path]:
        """A folder of new people, for as long as they have not come."""
        with tempfile.TemporaryDirectory(prefix="lmeraser-came-") as name:
            folder = Path(name) / "came"
            write_newcomers(self.ground, self.people, folder, self.progress.additions)
            self.progress.additions += 1
            self.save()
            yield folder

    def everybody(self) -> list[str]:
        """Who may leave, first to last; those who left stay in this list, and in the source (source.erase is false)."""
        return people_of(open_source(load_params(self.root / "params.yaml").source, self.root).table())

    def take(self, count: int) -> list[str]:
        """The next people who leave."""
        names = self.everybody()[self.progress.people : self.progress.people + count]
        self.progress.people += count
        self.save()
        return names

    # warm processes

    @contextmanager
    def warm(self) -> Iterator[list[int]]:
        """What `make serve` keeps warm, without its server and workers. Yields their process ids."""
        layout = Layout(self.root)
        layout.private_state.mkdir(exist_ok=True, mode=0o700)
        service = Service(Project(layout), port=0)
        shutil.rmtree(service.logs, ignore_errors=True)  # an earlier one's word that it was ready
        try:
            start_warm(service, self.environment(), None)
            _wait_until_ready(service)
            yield [child.process.pid for child in service.children if child.process]
        finally:
            service.stop()


def _wait_until_ready(service: Service) -> None:
    deadline = time.monotonic() + STARTING
    waiting = {child.name: child for child in service.children}
    while waiting and time.monotonic() < deadline:
        time.sleep(0.2)
        for name, child in list(waiting.items()):
            if child.process and child.process.poll() is not None:
                raise SystemExit(f"bench.erasure: {name} ended; its log ends: {_last_line(service.logs / f'{name}.log')}")
            if b"ready" in (service.logs / f"{name}.log").read_bytes():
                del waiting[name]
    if waiting:
        raise SystemExit(f"bench.erasure: {', '.join(waiting)} did not become ready in {STARTING} s")


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "(it is empty)"


def _require_space(ground: Ground, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = ground.records * BYTES_A_RECORD, shutil.disk_usage(folder).free
    if free < needed:
        raise SystemExit(
            f"bench.erasure: {ground.name} needs about {needed / 1e9:.0f} GB of disk and {free / 1e9:.0f} are free; set "
            "TMPDIR or --keep to a larger disk"
        )


@contextmanager
def place_of(ground: Ground, keep: Path | None) -> Iterator[Place]:
    """A place for a project: a temporary folder, or one below `keep`, which stays and is used again."""
    if keep:
        folder = (keep / ground.name).absolute()
        if folder.exists() and not (folder / "progress.json").exists():  # a build that failed or was killed
            shutil.rmtree(folder)
        yield Place(ground, folder)
        return
    with tempfile.TemporaryDirectory(prefix="lmeraser-erasure-") as name:
        yield Place(ground, Path(name))


@contextmanager
def untouched(files: Sequence[Path]) -> Iterator[None]:
    """Whatever is written in their place, the very files are there afterwards: DVC knows a file by inode and time."""
    kept = {path: path.with_name(f"{path.name}.kept-by-bench") for path in files if path.exists()}
    for path, copy in kept.items():
        os.link(path, copy)
    try:
        yield
    finally:
        for path, copy in kept.items():
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            copy.rename(path)
