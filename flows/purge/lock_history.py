"""Every known version of the pipeline: its locks in the working tree, in kept copies and in all of git's history.

A version is a state: with many slots several locks that stood together, because what one stage made is what a stage of another
file read (`lmeraser/pipeline/files.py`). Another pipeline of the same project stands in the state too: what it made of our
artifacts is told by its lock alone, and what it made of anything else is its own.
"""

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from flows.purge.git_history import BROKEN, PARTIAL, Blob, Repository, walked
from lmeraser.core.errors import StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.erase.taint import StageRun
from lmeraser.pipeline.files import LOCK, is_lock, locks_there
from lmeraser.pipeline.locks import Named, load_yaml, named_of

WORKING = "working copy"
KEPT = "kept copy"  # of locks, below the project's private folder: it goes with what it was kept for
File = tuple[str, bytes]  # (path relative to the project, text)


@dataclass(frozen=True)
class Version:
    """Locks that stood together: one state of the pipeline. Attributes: origin: names it; files: its locks."""

    origin: str
    files: tuple[File, ...]


@dataclass(frozen=True)
class Versions:
    """Attributes: known: every state, each once; problem: why git's history is not whole, and what to do; "" if it is."""

    known: list[Version] = field(default_factory=list)
    problem: str = ""


def _stands_alone(path: str) -> bool:
    """A `.dvc` file, or what lies outside the project: no state of ours."""
    return path.startswith("../") or PurePosixPath(path).name != LOCK


def _history(repository: Repository) -> Versions:
    """Every state of the locks, and every .dvc file, that any ref, stash, reflog or index names. Raises: StepFailedError."""
    commits, loose = repository.commits()
    paths = {path for path, _ in loose if not _stands_alone(path)}
    states = {frozenset(state) for state in repository.listed(commits, paths)}
    for worktree in repository.worktrees:
        index = repository.index(worktree)
        loose |= index
        states.add(frozenset(blob for blob in index if not _stands_alone(blob[0])))
    # What belongs to no state that could be listed stands alone.
    states |= {frozenset({blob}) for blob in loose.difference(*states)}
    blobs, whole = repository.read({blob for state in states for blob in state})

    def version(state: frozenset[Blob]) -> Version:
        ordered = sorted(state)
        files = tuple((path, blobs[identity]) for path, identity in ordered if identity in blobs)
        return Version(" ".join(f"{identity} {path}" for path, identity in ordered), files)

    return Versions([version(state) for state in states if state], repository.problem or ("" if whole else PARTIAL))


def _kept(layout: Layout) -> list[Version]:
    """Copies of locks below the project's private folder: those of one folder there belong together."""
    groups: dict[str, list[File]] = {}
    for name in kept_locks(layout):
        origin = name.rpartition("/tune/")[0] or name.rpartition("/")[0] or name
        path = name.removeprefix(f"{origin}/") if is_lock(name.removeprefix(f"{origin}/")) else LOCK
        groups.setdefault(origin, []).append((path, (layout.private_state / name).read_bytes()))
    return [Version(f"{KEPT}: {origin}", tuple(files)) for origin, files in groups.items()]


def _tree(layout: Layout, repository: Repository) -> list[Version]:
    """What lies in the working tree, and in the repository's other worktrees, committed or not."""
    private = layout.private_state.relative_to(layout.root).as_posix()
    versions: list[Version] = []
    folders = repository.worktrees if repository.usable else [layout.root]
    for folder in folders:
        here = folder == folders[0]
        named = repository.files(folder) if repository.usable else walked(folder)
        if here:
            named |= {path.relative_to(layout.root).as_posix(): path for path in locks_there(layout.root)}
        files = [(name, path.read_bytes()) for name, path in sorted(named.items()) if not name.startswith(f"{private}/")]
        origin = WORKING if here else f"{WORKING} {folder}"
        versions.append(Version(origin, tuple(file for file in files if not _stands_alone(file[0]))))
        versions += [Version(f"{origin}: {name}", ((name, text),)) for name, text in files if _stands_alone(name)]
    return versions


def versions(layout: Layout) -> Versions:
    """Every state that is known, each once: content decides; and why it may not be all."""
    repository = Repository.of(layout)
    past = Versions([], repository.problem)
    if repository.usable:
        try:
            past = _history(repository)
        except StepFailedError:
            past = Versions([], repository.problem or BROKEN)
    try:
        tree = _tree(layout, repository)
    except StepFailedError:
        tree = _tree(layout, Repository(layout, False, BROKEN))
    # Of the same state the last one counts: what git or the working tree names as well is more than a copy.
    distinct = {frozenset(version.files): version for version in (*_kept(layout), *past.known, *tree) if version.files}
    return Versions(list(distinct.values()), past.problem)


def _may_lie(lock: str, named: Named) -> Named:
    """Where the paths that a lock names may lie, relative to the project.

    Ours are relative to the project. Those of another pipeline are relative to its stages' `wdir`, which a lock does not tell:
    the lock's folder or, mostly, one above it.
    """
    if is_lock(lock):
        return named
    above = PurePosixPath(lock).parent.parts
    places: list[tuple[str, str]] = []
    for path, md5 in named:
        inner = os.path.normpath(path)
        while inner.startswith("../"):
            inner = inner.removeprefix("../")
        places += [("/".join((*above[:depth], inner)), md5) for depth in range(len(above) + 1)]
    return tuple(places)


def parse_lock(raw: bytes, path: str = LOCK) -> list[StageRun]:
    """The stages of a dvc.lock, or what a .dvc file names; nothing if it is neither whole. Args: path: where it lies."""
    try:
        tree = load_yaml(raw)
    except ValueError:
        return []
    if not isinstance(tree, dict):
        return []
    stages = tree.get("stages")
    entries = list(stages.values()) if isinstance(stages, dict) else [tree]
    runs: list[StageRun] = []
    for entry in entries:
        try:
            if isinstance(entry, dict):
                deps, outs = named_of(entry)
                runs.append(StageRun(_may_lie(path, deps), _may_lie(path, outs)))
        except (ValueError, KeyError):
            continue  # one odd entry of another program's lock hides none of its neighbours
    return runs


def all_stages(known: Iterable[Version]) -> list[StageRun]:
    """Every stage of every version, each once, with the versions that tell of it; what many versions repeat is parsed once."""
    versions_of: dict[File, list[str]] = defaultdict(list)
    for version in known:
        for file in version.files:
            versions_of[file].append(version.origin)
    origins: dict[tuple[Named, Named], set[str]] = defaultdict(set)
    for (path, text), those in versions_of.items():
        for run in parse_lock(text, path):
            origins[run.deps, run.outs].update(those)
    return [StageRun(deps, outs, frozenset(those)) for (deps, outs), those in origins.items()]


def kept_locks(layout: Layout) -> list[str]:
    """Copies of dvc.lock below the project's private folder, as paths relative to it."""
    folder = layout.private_state
    files = (path for path in sorted(folder.rglob("*.lock")) if path.is_file() and path.stat().st_size)
    return [path.relative_to(folder).as_posix() for path in files if parse_lock(path.read_bytes())]
