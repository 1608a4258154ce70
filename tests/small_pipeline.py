"""A pipeline of six stages in two files, whose outs are there: for tests of what DVC is asked, and what it answers."""

import json
import os
from pathlib import Path
from typing import Any

import yaml

from lmeraser.core.layout import Layout
from lmeraser.pipeline.locks import digest_of_folder, md5_of_file

HERE = Path(__file__).resolve().parent.parent
ROOT: dict[str, Any] = {
    "vars": ["params.yaml"],
    "stages": {
        "split": {"cmd": "python -m split", "deps": ["source"], "params": ["seed"], "outs": ["artifacts/split"]},
        "embed": {
            "foreach": ["a", "b"],
            "do": {"cmd": "python -m embed ${item}", "deps": ["artifacts/split/${item}"], "outs": ["artifacts/embed/${item}"]},
        },
        "score": {"cmd": "python -m score", "deps": ["artifacts/embed"], "metrics": [{"score.json": {"cache": False}}]},
    },
}
BESIDE: dict[str, Any] = {
    "stages": {
        "tune": {
            "foreach": ["c0", "c1"],
            "do": {
                "wdir": "../..",
                "cmd": "python -m tune ${item}",
                "deps": ["artifacts/embed/a"],
                "outs": ["artifacts/tune/${item}"],
            },
        }
    }
}
ADDRESSES = {"split", "embed@a", "embed@b", "score", "tune/00/dvc.yaml:tune@c0", "tune/00/dvc.yaml:tune@c1"}
FILES = ("source/one", "source/two", "artifacts/split/a", "artifacts/split/b", "artifacts/embed/a", "artifacts/embed/b")


def write(root: Path, name: str, content: object) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def make(root: Path) -> Layout:
    """Its files; nothing is recorded."""
    write(root, "dvc.yaml", ROOT)
    write(root, "tune/00/dvc.yaml", BESIDE)
    write(root, "params.yaml", (HERE / "params.yaml").read_text())
    for name in (*FILES, "artifacts/tune/c0", "artifacts/tune/c1"):
        write(root, name, f"content of {name}")
    write(root, "score.json", json.dumps({"accuracy": 0.5}))
    layout = Layout(root)
    layout.private_state.mkdir(mode=0o700)
    return layout


def stages_of(file: dict[str, Any]) -> dict[str, Any]:
    """Stages by plain name, each as it stands for its item."""
    stages: dict[str, Any] = {}
    for name, stage in file["stages"].items():
        for item in stage.get("foreach", [""]):
            text = json.dumps(stage.get("do", stage)).replace("${item}", item)
            stages[f"{name}@{item}" if item else name] = json.loads(text)
    return stages


def record(root: Path) -> None:
    """Locks and cache as DVC leaves them; without DVC, in a millisecond."""
    (root / ".dvc" / "tmp").mkdir(parents=True, exist_ok=True)
    for folder, file in (("", ROOT), ("tune/00/", BESIDE)):
        entries = {}
        for name, stage in stages_of(file).items():
            outs = [*stage.get("outs", ()), *(next(iter(metric)) for metric in stage.get("metrics", ()))]
            entry = {"cmd": stage["cmd"], "deps": [_named(root, dep) for dep in stage["deps"]]}
            entries[name] = entry | {"params": {"params.yaml": {"seed": 1}}, "outs": [_named(root, out) for out in outs]}
            for out in stage.get("outs", ()):
                _keep(root, out)
        write(root, f"{folder}dvc.lock", {"schema": "2.0", "stages": entries})


def _members(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): md5_of_file(path) for path in folder.rglob("*") if path.is_file()}


def _named(root: Path, name: str) -> dict[str, Any]:
    path = root / name
    digest = digest_of_folder(_members(path)) if path.is_dir() else md5_of_file(path)
    return {"path": name, "hash": "md5", "md5": digest, "size": 1}


def _keep(root: Path, out: str) -> None:
    path = root / out
    if path.is_dir():
        members = _members(path)
        for name, md5 in members.items():
            _object(root, md5, (path / name).read_text())
        listed = [{"md5": md5, "relpath": name} for name, md5 in sorted(members.items())]
        _object(root, digest_of_folder(members), json.dumps(listed, sort_keys=True))
    else:
        _object(root, md5_of_file(path), path.read_text())


def object_path(root: Path, md5: str) -> Path:
    return root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]


def _object(root: Path, md5: str, text: str) -> None:
    path = object_path(root, md5)
    if not path.exists():
        write(root, path.relative_to(root).as_posix(), text)


def swap(path: Path, text: str) -> None:
    """Another file of the same size and time in its place, as a checkout leaves it."""
    before = path.stat()
    draft = path.with_name("draft")
    draft.write_text(text.ljust(before.st_size, ".")[: before.st_size])
    os.utime(draft, ns=(before.st_atime_ns, before.st_mtime_ns))
    draft.replace(path)
