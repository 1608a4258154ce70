"""Projects in hundreds: a cache and a remote, locks and stores written by hand; no git, no DVC, no process."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from faulty_store import Fault, FaultyStore, Killed
from memory_store import MemoryStore

from flows.dvc import config as remotes
from flows.purge import git_history, leftovers
from flows.purge.step import PurgeJournal
from lmeraser.core.layout import Layout
from lmeraser.stores.base import Store
from lmeraser.stores.dvc_objects import contents, read_manifests, read_runs
from lmeraser.stores.folder import FolderStore

CACHE, REMOTE = "cache", "remote disk"
Stage = tuple[Mapping[str, str], Mapping[str, str]]  # path to MD5 of its deps, and of its outs


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def object_key(md5: str) -> str:
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def run_key(entry: str) -> str:
    return f"runs/{entry[:2]}/{entry}"


def entry_of(name: str) -> str:
    """The id of a run-cache entry."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{digest}/{digest[::-1]}"


def manifest_of(members: Mapping[str, str]) -> bytes:
    return json.dumps([{"md5": md5, "relpath": path} for path, md5 in members.items()]).encode()


def _sides(stage: Stage, indent: str) -> str:
    lines = []
    for side, paths in zip(("deps", "outs"), stage, strict=True):
        lines += [f"{indent}{side}:"] if paths else []
        for path, md5 in paths.items():
            lines += [f"{indent}- path: {path}", f"{indent}  md5: {md5}"]
    return "".join(f"{line}\n" for line in lines)


def run_text(stage: Stage) -> bytes:
    return f"cmd: x\n{_sides(stage, '')}".encode()


def lock_text(stages: Mapping[str, Stage]) -> str:
    texts = (f"  {name}:\n    cmd: x\n{_sides(stage, '    ')}" for name, stage in stages.items())
    return "schema: '2.0'\nstages:\n" + "".join(texts)


def _numbered(stages: Sequence[Stage]) -> dict[str, Stage]:
    return {f"stage{number}": stage for number, stage in enumerate(stages)}


@dataclass
class Tiny:
    """A project whose stores a test fills, and may make faulty."""

    layout: Layout
    cache: FolderStore | MemoryStore
    remote: MemoryStore
    stores: list[Store] = field(default_factory=list)
    failed: set[tuple[str, str]] = field(default_factory=set)  # stores and keys of the last deletes that failed

    @classmethod
    def of(cls, root: Path, current: Sequence[Stage], earlier: Sequence[Sequence[Stage]] = (), on_disk: bool = False) -> "Tiny":
        """Args: current: the stages of dvc.lock; earlier: of kept copies; on_disk: whether the cache is a folder."""
        (root / ".dvc").mkdir(parents=True)
        (root / "dvc.yaml").write_text("stages: {}\n")
        (root / "dvc.lock").write_text(lock_text(_numbered(current)))
        for number, stages in enumerate(earlier):
            copy = root / ".lmeraser" / f"{number}.locks" / "dvc.lock"
            copy.parent.mkdir(parents=True)
            copy.write_text(lock_text(_numbered(stages)))
        cache = FolderStore(CACHE, root / ".dvc" / "cache") if on_disk else MemoryStore(name=CACHE)
        remote = MemoryStore(name=REMOTE)
        return cls(Layout(root), cache, remote, [cache, remote])

    def fill(self, cache: Mapping[str, bytes], remote: Mapping[str, bytes]) -> None:
        if isinstance(self.cache, MemoryStore):
            self.cache.files |= cache
        else:
            for key, content in cache.items():
                path = self.cache.root / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        self.remote.files |= remote

    def contents(self) -> dict[str, dict[str, bytes]]:
        """All that is in the stores: name to key to content."""
        return {store.name: store.read([key for key, _ in store.list()]) for store in (self.cache, self.remote)}

    def with_faults(self, faults: Sequence[Fault], act: Callable[[], object]) -> list[str]:
        """Do it with stores that fail; calls are counted over both. Returns the keys of the deletes, in their order."""
        calls: Counter[str] = Counter()
        faulty = [FaultyStore(store, faults, calls) for store in (self.cache, self.remote)]
        self.stores = list(faulty)
        try:
            act()
        finally:
            self.failed = {(store.name, key) for store in faulty for key in store.failed}
            self.stores = [self.cache, self.remote]
        return [key for store in faulty for key in store.deleted]

    def killed(self, deletes: int, act: Callable[[], object]) -> bool:
        """End the process before the delete of this number; whether there was one."""
        try:
            self.with_faults([Fault("delete", deletes, "kill")], act)
        except Killed:
            return True
        return False

    def outside(self, journal: PurgeJournal, live: frozenset[str]) -> dict[str, dict[str, bytes]]:
        """What must be left of the stores: written down a second, naive way."""
        kept: dict[str, dict[str, bytes]] = {}
        for store in (self.cache, self.remote):
            own, stored = store.name == CACHE, contents(store)
            goes = {*journal.objects, *(journal.own_cache if own else ())} - live
            goes |= {md5 for md5, members in read_manifests(store, stored).items() if goes & {*members.values()}} - live
            runs, damaged = read_runs(store, stored)
            entries = {entry for entry, named in runs.items() if goes & {md5 for side in named for _, md5 in side}}
            entries |= {*journal.run_entries, *damaged}
            keys = {key for md5 in goes & stored.objects.keys() for key in stored.objects[md5]}
            keys |= {stored.runs[entry] for entry in entries & stored.runs.keys()}
            keys |= {key for key in stored.leftovers if own or key.endswith(".tmp")}
            kept[store.name] = {key: content for key, content in self.contents()[store.name].items() if key not in keys}
        return kept


@contextmanager
def only_these_stores(project: Tiny, folder: Path) -> Iterator[None]:
    """Let purge find the project's stores, and nothing of this machine."""

    def no_git(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("PREFECT_HOME", "XDG_CONFIG_HOME", "DVC_SITE_CACHE_DIR"):
            patch.setenv(name, str(folder / name))
        patch.setattr(remotes, "stores", lambda _: project.stores)
        patch.setattr(remotes, "is_own", lambda _, store: store.name == CACHE)
        patch.setattr(git_history, "_run", no_git)
        patch.setattr(leftovers, "audits", list)
        yield
