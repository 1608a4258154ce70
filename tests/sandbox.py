"""A small real project: 60 people's digits as a user's folder of images, with names that must never leak."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import preloading
import yaml
from told import require_told

from flows.audit.rebuild import copy_code
from lmeraser.core.params import Source
from lmeraser.pipeline.files import is_lock, locks
from lmeraser.sources import open_source

REPOSITORY = Path(__file__).resolve().parents[1]
CANARY = "kanarienvogel"  # in every subject's name and every path
AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
SMALL: dict[str, dict[str, Any]] = {
    "pretrain": {"epochs": 4, "kwargs": {"layers": [1, 1, 1, 1], "channels": [8, 16, 16, 32], "stem_width": 8}},
    "skeleton": {"leaves": 4},
    "projection": {"dim": 64},
    "cluster": {"n_max": 45},
    "tune": {"epochs": 3},
}


@dataclass(frozen=True)
class Sandbox:
    """A project in a temporary folder, used by its commands as a person would."""

    root: Path

    def lmeraser(self, *arguments: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        return self.python("-m", "flows.cli", *arguments, env=env)

    def json(self, *arguments: str) -> dict[str, Any]:
        done = self.lmeraser(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        require_told(arguments[0], answer)
        return answer

    def python(self, *arguments: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env=preloading.variables(os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1", "COLUMNS": "200"} | (env or {})),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def dvc(self, *arguments: str) -> str:
        done = self.python("-m", "dvc", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def manifest(self) -> pd.DataFrame:
        return pd.read_csv(self.root / "people" / "manifest.csv", dtype=str)

    def people(self, visibility: str = "private", split: str = "train") -> list[str]:
        rows = self.manifest
        return sorted(rows.loc[(rows["visibility"] == visibility) & (rows["split"] == split), "subject"].unique())

    def lock(self) -> dict[str, Any]:
        """Every stage that a lock records, by its plain name."""
        return {name: stage for path in locks(self.root) for name, stage in yaml.safe_load(path.read_text())["stages"].items()}

    def set_params(self, **sections: Any) -> None:
        """Args: sections: changes to a section of params.yaml, or a whole value (`slots`)."""
        path = self.root / "params.yaml"
        raw = yaml.safe_load(path.read_text())
        for name, changes in sections.items():
            raw[name] = raw[name] | changes if isinstance(raw[name], dict) else changes
        path.write_text(yaml.safe_dump(raw, sort_keys=False))

    def contents(self, private: bool = True) -> dict[str, bytes]:
        """Everything that a person could miss: all files but caches, locks and compiled code; `private`: and `.lmeraser`."""
        skipped = [".dvc/tmp", ".dvc/cache", ".git/", "__pycache__", ".lock", "error.json"]
        skipped += [] if private else [".lmeraser/"]
        files = (path for path in self.root.rglob("*") if path.is_file())
        kept = {str(path.relative_to(self.root)): path for path in files}
        return {
            name: path.read_bytes() for name, path in kept.items() if is_lock(name) or not any(part in name for part in skipped)
        }


def write_people(folder: Path, private: int) -> None:
    """People of the digits as PNG files and manifest.csv: so many private ones, 20 public, 12 to test with."""
    source = open_source(Source(kind="digits", path="data/digits.csv", erase=False), REPOSITORY)
    table = source.table().drop(columns="line")
    train = table[table["split"] == "train"].groupby("visibility")["subject"].unique()
    test = table[table["split"] == "test"]["subject"].unique()
    chosen = {*train["private"][:private], *train["public"][:20], *test[:12]}
    table = table[table["subject"].isin(chosen)].copy()
    (folder / "images").mkdir(parents=True)
    names = []
    for row in table.itertuples():
        name = f"images/{CANARY}-{row.Index:04d}.png"
        (folder / name).write_bytes(source.image(str(row.path)))
        names.append(name)
    table["path"] = names
    table["subject"] = CANARY + "-" + table["subject"]
    table.to_csv(folder / "manifest.csv", index=False)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_project(root: Path, private: int = 40, write: Callable[[Path], None] | None = None) -> Sandbox:
    """An unbuilt project of the small people. Args: write: lays other people out in a folder: images and manifest.csv."""
    root.mkdir()
    copy_code(REPOSITORY, root)
    for name in ("tests", "bench", "docs"):  # no command needs them; every test copies and scans what is here
        shutil.rmtree(root / name)
    (write or partial(write_people, private=private))(root / "people")
    sandbox = Sandbox(root)
    with (root / ".gitignore").open("a") as ignored:
        ignored.write("/people/\n")
    sandbox.set_params(
        source={"kind": "manifest", "path": "people"}, parts=["p00", "p01"], slots=["c00", "c01", "c02", "c03"], **SMALL
    )
    git = ["git", "-C", str(root), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "people"], check=True)
    subprocess.run([*git, "repack", "-a", "-d", "-q"], check=True)
    return sandbox


def refused(done: "subprocess.CompletedProcess[str]", code: int) -> str:
    """The one line of a refusal, after checking that it is one, with this exit status, and names nobody."""
    assert done.returncode == code, (done.returncode, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert CANARY not in done.stdout + done.stderr
    return lines[0]
