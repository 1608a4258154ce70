"""DVC in this process: the stages of dvc.yaml over files, a cache and locks in DVC's formats. No subprocess, no torch.

It does what DVC does where a killed command could leave something behind: a lock is written in place, once a stage, and is empty
for a moment; an object of the cache is a draft before it has its name; outs are deleted before their stage runs.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

from lmeraser.core.digest import sha256
from lmeraser.core.errors import LmeraserError, ProjectError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.pipeline.before import Before

PIPELINE = Path(__file__).resolve().parents[1] / "dvc.yaml"
CODE = ("stages/", "lmeraser/")  # a fake project holds no code
FOLDER = ".dir"
HEADER = "schema: '2.0'\nstages:\n"
Action = Callable[[Layout, Params, list[str]], None]  # of a stage, as `stages/` has them
Update = Callable[[Before, Layout, Params, list[str]], bool]  # as `stages/update/` has them


@dataclass(frozen=True)
class FakeStage:
    """A stage of dvc.yaml. Attributes: params: names in params.yaml; uncached: those of the outs that no cache holds."""

    name: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]
    uncached: frozenset[str]


@cache
def _definitions() -> dict[str, Any]:
    definitions: dict[str, Any] = yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))["stages"]
    return definitions


@lru_cache(maxsize=32)
def _stages(parts: tuple[str, ...], slots: tuple[str, ...], source: str) -> dict[str, FakeStage]:
    made: dict[str, FakeStage] = {}
    items = {"${parts}": parts, "${slots}": slots}
    for name, definition in _definitions().items():
        for item in items[definition["foreach"]] if "foreach" in definition else [""]:
            inner = definition.get("do", definition)

            def filled(text: str, item: str = item) -> str:
                return text.replace("${item}", item).replace("${source.path}", source)

            outs, uncached = [], set()
            for out in [*inner.get("outs", ()), *inner.get("metrics", ())]:
                path = filled(out if isinstance(out, str) else next(iter(out)))
                outs.append(path)
                if isinstance(out, dict):
                    uncached.add(path)
            stage = f"{name}@{item}" if item else name
            deps = tuple(filled(dep) for dep in inner["deps"] if not dep.startswith(CODE))
            made[stage] = FakeStage(stage, deps, tuple(inner.get("params", ())), tuple(outs), frozenset(uncached))
    return made


def stages_of(params: Params) -> dict[str, FakeStage]:
    """Every stage of the pipeline by its plain name, in an order in which it can run."""
    return _stages(tuple(params.parts), tuple(params.slots), params.source.path)


class FakeDvc:
    """DVC of one project. Args: actions, updates: what each kind of stage does, by its name in dvc.yaml."""

    def __init__(self, layout: Layout, actions: dict[str, Action], updates: Mapping[str, Update]) -> None:
        self.layout = layout
        self.actions = actions
        self.updates = updates
        self.params = load_params(layout.params)
        self.stages = stages_of(self.params)
        self.cache = layout.root / ".dvc" / "cache"

    # What is recorded, and what is there

    def recorded(self) -> dict[str, Any]:
        """The lock's entries by stage; none where it is missing or empty. Raises: ProjectError if it is half."""
        text = self.layout.lock.read_text(encoding="utf-8") if self.layout.lock.exists() else ""
        try:
            lines = [line.strip().partition(": ") for line in text.removeprefix(HEADER).splitlines()]
            return {name: json.loads(entry) for name, _, entry in lines}
        except ValueError as error:
            raise ProjectError("dvc status failed: the lock is damaged") from error

    def _values(self, stage: FakeStage) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name in stage.params:
            value: Any = self.params
            for key in name.split("."):
                value = getattr(value, key)
            values[name] = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        return json.loads(json.dumps(values))  # type: ignore[no-any-return]

    def _entry(self, stage: FakeStage) -> dict[str, Any]:
        """What a lock would record of a stage now. Raises: StepFailedError if an out is missing."""
        there = digests_of(self.layout.root, {*stage.deps, *stage.outs})
        if missing := [out for out in stage.outs if out not in there]:
            raise StepFailedError(f"dvc commit failed: {missing[0]} is missing")

        def named(paths: Iterable[str]) -> list[dict[str, str]]:
            return [{"path": path, "hash": "md5", "md5": there[path]} for path in paths if path in there]

        return {
            "cmd": f"python -m stages.{stage.name}",
            "deps": named(stage.deps),
            "params": {"params.yaml": self._values(stage)},
            "outs": named(stage.outs),
        }

    def status(self) -> dict[str, Any]:
        """As `dvc status --json`: why each stage is stale."""
        recorded = self.recorded()
        there = digests_of(self.layout.root, {path for stage in self.stages.values() for path in (*stage.deps, *stage.outs)})
        return {name: reasons for name, stage in self.stages.items() if (reasons := self._reasons(stage, recorded, there))}

    def _reasons(self, stage: FakeStage, recorded: dict[str, Any], there: dict[str, str]) -> list[dict[str, Any]]:
        entry = recorded.get(stage.name, {"deps": [], "outs": [], "params": {"params.yaml": {}}})
        deps, outs = ({file["path"]: file["md5"] for file in entry[side]} for side in ("deps", "outs"))
        known, values = entry["params"]["params.yaml"], self._values(stage)

        def differing(paths: Iterable[str], recorded: dict[str, str]) -> dict[str, Any]:
            other = (path for path in paths if recorded.get(path) != there.get(path))
            return {path: "modified" if path in there else "deleted" for path in other}

        changed = differing(stage.deps, deps)
        if edited := {name: "modified" for name in stage.params if known.get(name) != values[name]}:
            changed["params.yaml"] = edited
        reasons = {"changed deps": changed, "changed outs": differing(stage.outs, outs)}
        return [{kind: paths} for kind, paths in reasons.items() if paths]

    # What changes files

    def run_stages(self, names: Sequence[str], before: Before | None = None) -> None:
        """Run actions in order and record nothing, as a chain of stages does. Raises: StepFailedError.

        Args: before: the state before, from which those stages are updated that have an update of their own.
        """
        for name in names:
            kind, _, item = name.partition("@")
            items = [item] if item else []
            update = self.updates.get(kind) if before else None
            try:
                if not (before and update and update(before, self.layout, self.params, items)):
                    self.actions[kind](self.layout, self.params, items)
            except LmeraserError as error:
                raise StepFailedError(str(error), error.exit_code) from error

    def commit(self, names: Sequence[str]) -> None:
        """Record stages as they are, one after the other."""
        for name in names:
            entry = self._entry(self.stages[name])
            self._store(self.stages[name])
            self._write_lock(self.recorded() | {name: entry})

    def repro(self, names: Sequence[str] = (), single: bool = False) -> None:
        """Run what is stale, and what it depends on unless `single`; a run leaves an entry in the run cache."""
        chosen = set(names) if single else self._with_those_above(names or list(self.stages))
        for stage in self.stages.values():
            if stage.name not in chosen:
                continue
            there = digests_of(self.layout.root, {*stage.deps, *stage.outs})
            reasons = self._reasons(stage, self.recorded(), there)
            run = any("changed deps" in reason for reason in reasons)
            if run or (reasons and not self._restore(stage, metrics=True)):
                self._delete(stage.outs)
                self.run_stages([stage.name])
                self._remember_run(self._entry(stage))
                self.commit([stage.name])

    def _with_those_above(self, names: Iterable[str]) -> set[str]:
        chosen = set(names)
        for stage in reversed(self.stages.values()):  # whoever reads an out comes after its stage
            deps = {dep for name in chosen for dep in self.stages[name].deps}
            if any(_meet(out, dep) for out in stage.outs for dep in deps):
                chosen.add(stage.name)
        return chosen

    def checkout(self, names: Sequence[str] = ()) -> None:
        """Bring every out back that is not what the lock records. Raises: StepFailedError if the cache lacks one."""
        recorded = self.recorded()
        chosen = [stage for name, stage in self.stages.items() if name in recorded and (not names or name in names)]
        lost = [stage for stage in chosen if not self._restore(stage)]
        if lost:
            raise StepFailedError(f"dvc checkout failed: {len(lost)} outs are not in the cache")

    def _restore(self, stage: FakeStage, metrics: bool = False) -> bool:
        """Bring a stage's outs back from the cache; whether all are as recorded. Args: metrics: those that no cache holds too."""
        outs = {out["path"]: out["md5"] for out in self.recorded().get(stage.name, {"outs": []})["outs"]}
        for path, md5 in outs.items():
            if digests_of(self.layout.root, [path]).get(path) == md5 or (path in stage.uncached and not metrics):
                continue
            if not self._object(md5).exists():
                return False
            self._delete([path])
            members = {"": md5}
            if md5.endswith(FOLDER):
                listed = json.loads(self._object(md5).read_bytes())
                members = {member["relpath"]: member["md5"] for member in listed}
            for relative, content in members.items():
                target = self.layout.root / path / relative if relative else self.layout.root / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self._object(content).read_bytes())
        return True

    def _delete(self, outs: Iterable[str]) -> None:
        for out in outs:
            path = self.layout.root / out
            for file in sorted(path.rglob("*"), reverse=True) if path.is_dir() else [path]:
                if file.is_file():
                    file.unlink()

    def _object(self, md5: str) -> Path:
        return self.cache / "files" / "md5" / md5[:2] / md5[2:]

    def _store(self, stage: FakeStage) -> None:
        root = self.layout.root
        for out in stage.outs:
            if out in stage.uncached:
                continue
            [md5] = digests_of(root, [out]).values()
            if self._object(md5).exists():
                continue
            if md5.endswith(FOLDER):
                listed = manifest_of(f"{root}/{out}")
                for member in json.loads(listed):
                    self._put(member["md5"], (root / out / member["relpath"]).read_bytes())
                self._put(md5, listed)
            else:
                self._put(md5, (root / out).read_bytes())

    def _put(self, md5: str, content: bytes) -> None:
        path = self._object(md5)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name[:8]}.tmp")
            draft.write_bytes(content)
            draft.rename(path)

    def _remember_run(self, entry: dict[str, Any]) -> None:
        asked, made = (sha256(json.dumps(value).encode()) for value in ((entry["cmd"], entry["deps"], entry["params"]), entry))
        path = self.cache / "runs" / asked[:2] / asked / made
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(entry))

    def _write_lock(self, entries: dict[str, Any]) -> None:
        lines = [f"  {name}: {json.dumps(entries[name])}\n" for name in self.stages if name in entries]  # JSON is YAML
        with self.layout.lock.open("w", encoding="utf-8") as lock:
            emptied(self.layout.lock)
            lock.write(HEADER + "".join(lines))


_known: dict[tuple[str, int, int, int], str] = {}  # as DVC remembers what it hashed, by inode, size and time


def digests_of(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Digests of files and folders as DVC names content; what is missing is left out."""
    return {path: digest for path in set(paths) if (digest := _digest(f"{root}/{path}")) is not None}


def _digest(path: str) -> str | None:
    try:
        facts = os.stat(path)  # noqa: PTH116  (thousands of them)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(facts.st_mode):
        return _md5_of(manifest_of(path)) + FOLDER
    key = (path, facts.st_ino, facts.st_size, facts.st_mtime_ns)
    if key not in _known:
        _known[key] = _md5_of(Path(path).read_bytes())
    return _known[key]


def manifest_of(folder: str) -> bytes:
    """What DVC keeps of a folder: its files with their digests, sorted by name."""
    names = sorted(f"{place}/{name}"[len(folder) + 1 :] for place, _, files in os.walk(folder) for name in files)
    return json.dumps([{"md5": _digest(f"{folder}/{name}"), "relpath": name} for name in names], sort_keys=True).encode()


def _md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def emptied(path: Path) -> None:
    """Called between the moment that empties a lock and the one that fills it: `tests/kills.py` kills here too."""


def _meet(out: str, dep: str) -> bool:
    return out == dep or out.startswith(f"{dep}/") or dep.startswith(f"{out}/")
