"""Every known version of the pipeline: its locks in the working tree, in kept copies and in all of git's history.

A version is a state: with many slots several locks that stood together, because what one stage made is what a stage of another
file read (`lmeraser/core/pipeline.py`).
"""

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lmeraser.core.errors import StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.core.pipeline import LOCK, is_lock, locks_there
from lmeraser.erase.taint import Instance
from lmeraser.stores.dvc_objects import Loader, named_of

WORKING = "working copy"
BLOB = re.compile(r"^:\d+ \d+ ([0-9a-f]+) ([0-9a-f]+) \w+\t(.*)$", re.MULTILINE)


def _git(layout: Layout, *arguments: str, given: bytes = b"") -> bytes:
    done = subprocess.run(
        ["git", "-C", str(layout.root), "-c", "log.showRoot=true", *arguments], input=given, capture_output=True, check=False
    )
    if done.returncode:
        raise StepFailedError(
            f"git {arguments[0]} failed ({done.returncode}): the history of dvc.lock cannot be read; mend it and retry"
        )
    return done.stdout


def _in_git(layout: Layout) -> bool:
    inside = subprocess.run(["git", "-C", str(layout.root), "rev-parse", "--git-dir"], capture_output=True, check=False)
    return inside.returncode == 0


def _dvc_files(layout: Layout) -> list[Path]:
    """The .dvc files of the working tree, committed or not."""
    if not _in_git(layout):
        return [path for path in layout.root.rglob("*.dvc") if path.is_file()]
    told = _git(layout, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.dvc").decode()
    return [layout.root / name for name in told.split("\0") if name and (layout.root / name).is_file()]


@dataclass(frozen=True)
class Version:
    """Locks that stood together: one state of the pipeline. Attributes: origin: names it; texts: of its locks."""

    origin: str
    texts: tuple[bytes, ...]


def _read_blobs(layout: Layout, ids: Iterable[str]) -> dict[str, bytes]:
    """Git's objects by id, as far as they are files."""
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    found: dict[str, bytes] = {}
    answer, at = _git(layout, "cat-file", "--batch", given="\n".join(wanted).encode() + b"\n"), 0
    while at < len(answer):
        end = answer.index(b"\n", at)
        identity, kind, *size = answer[at:end].decode().split()
        at = end + 1
        if size:
            if kind == "blob":
                found[identity] = answer[at : at + int(size[0])]
            at += int(size[0]) + 1
    return found


def _listed(layout: Layout, commits: Iterable[str], paths: Iterable[str]) -> dict[str, dict[str, str]]:
    """Which blob lies at which of the paths in each commit."""
    asked = [(commit, path) for commit in commits for path in paths]
    found: dict[str, dict[str, str]] = {}
    if not asked:
        return found
    given = "".join(f"{commit}:{path}\n" for commit, path in asked).encode()
    told = _git(layout, "cat-file", "--batch-check=%(objecttype) %(objectname)", given=given).decode(errors="replace")
    for (commit, path), line in zip(asked, told.splitlines(), strict=True):
        kind, _, identity = line.partition(" ")
        if kind == "blob":
            found.setdefault(commit, {})[path] = identity
    return found


def _history(layout: Layout) -> list[Version]:
    """Every state of the locks, and every .dvc file, that any ref, stash, reflog or the index names."""
    if not _in_git(layout):
        return []
    paths = ("--", LOCK, f":(glob)tune/*/{LOCK}", "*.dvc")
    log = ("--all", "--reflog", "--full-history", "-m", "--no-renames", "--format=%x00%H", "--raw", "--no-abbrev", *paths)
    commits: dict[str, None] = {}
    seen: set[str] = set()  # paths of locks
    loose: set[str] = set()
    for part in _git(layout, "log", *log).decode(errors="replace").split("\0")[1:]:
        commits[part.split("\n", 1)[0]] = None
        for old, new, path in BLOB.findall(part):
            loose |= {old, new}
            seen |= {path} if is_lock(path) else set()
    states = [frozenset(held.values()) for held in _listed(layout, commits, sorted(seen)).values()]
    index: set[str] = set()
    for line in _git(layout, "ls-files", "--stage", *paths).decode(errors="replace").splitlines():
        loose.add(line.split()[1])
        index |= {line.split()[1]} if is_lock(line.partition("\t")[2]) else set()
    states += [frozenset(index)] if index else []
    # What belongs to no state that could be listed stands alone.
    states += [frozenset({one}) for one in loose.difference(*states) if set(one) != {"0"}]
    blobs = _read_blobs(layout, {one for state in states for one in state})
    return [Version(" ".join(sorted(state)), tuple(blobs[one] for one in sorted(state) if one in blobs)) for state in set(states)]


def _kept(layout: Layout) -> list[Version]:
    """Copies of locks below the project's private folder: those of one folder there belong together."""
    groups: dict[str, list[bytes]] = {}
    for name in kept_locks(layout):
        origin = name.rpartition("/tune/")[0] or name.rpartition("/")[0] or name
        groups.setdefault(origin, []).append((layout.private_state / name).read_bytes())
    return [Version(origin, tuple(texts)) for origin, texts in groups.items()]


def known_versions(layout: Layout) -> list[Version]:
    """Every state that is known, each once: content decides."""
    working = Version(WORKING, tuple(path.read_bytes() for path in locks_there(layout.root)))
    loose = [Version(f"{WORKING}: a .dvc file", (path.read_bytes(),)) for path in _dvc_files(layout)]
    distinct = {frozenset(version.texts): version for version in (*_history(layout), *_kept(layout), *loose, working)}
    return list(distinct.values())


def _load(raw: bytes) -> Any:
    try:
        return yaml.load(raw, Loader=Loader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError):
        return None


def parse_lock(origin: str, raw: bytes) -> list[Instance]:
    """The stages of a dvc.lock, or what a .dvc file names; nothing if it is neither whole."""
    tree = _load(raw)
    if not isinstance(tree, dict):
        return []
    stages = tree.get("stages")
    entries = list(stages.values()) if isinstance(stages, dict) else [tree]
    try:
        return [Instance(origin, *named_of(entry)) for entry in entries if isinstance(entry, dict)]
    except (ValueError, KeyError):
        return []


def kept_locks(layout: Layout) -> list[str]:
    """Copies of dvc.lock below the project's private folder, as paths relative to it."""
    folder = layout.private_state
    files = (path for path in sorted(folder.rglob("*.lock")) if path.is_file() and path.stat().st_size)
    return [path.relative_to(folder).as_posix() for path in files if parse_lock("", path.read_bytes())]
