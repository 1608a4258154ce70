"""What is known about every version of the pipeline: dvc.lock in the working tree, in kept copies and in all of git's history,
run-cache entries and folder manifests in every store. Facts only; `lmeraser/erase/taint.py` decides.
"""

import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from flows import remotes
from lmeraser.core.errors import ProjectError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.erase.taint import FOLDER, RUN, Instance, Manifests, with_members
from lmeraser.prove.lock import DAMAGED
from lmeraser.stores.base import Store
from lmeraser.stores.dvc_objects import Contents, Loader, contents, named_of, read_manifests, read_runs

WORKING = "working copy"
BLOB = re.compile(r":\d+ \d+ ([0-9a-f]+) ([0-9a-f]+) \w+\t")
IsErased = Callable[[str], bool]
Held = list[tuple[Store, Contents]]


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


def _working_files(layout: Layout) -> list[Path]:
    """dvc.lock and the .dvc files of the working tree, committed or not."""
    if _in_git(layout):
        told = _git(layout, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.dvc").decode()
        files = [layout.root / name for name in told.split("\0") if name]
    else:
        files = list(layout.root.rglob("*.dvc"))
    return [path for path in (layout.lock, *files) if path.is_file()]


def _blobs(layout: Layout) -> Iterator[tuple[str, bytes]]:
    """Every version of dvc.lock and of .dvc files that any ref, stash, reflog or the index names, once each: id, content."""
    if not _in_git(layout):
        return
    paths = ("--", "dvc.lock", "*.dvc")
    log = ("--all", "--reflog", "--full-history", "-m", "--no-renames", "--format=", "--raw", "--no-abbrev", *paths)
    told = _git(layout, "log", *log).decode(errors="replace")
    ids = {identity for pair in BLOB.findall(told) for identity in pair}
    ids |= {line.split()[1] for line in _git(layout, "ls-files", "--stage", *paths).decode(errors="replace").splitlines()}
    wanted = sorted(one for one in ids if set(one) != {"0"})
    if not wanted:
        return
    answer, at = _git(layout, "cat-file", "--batch", given="\n".join(wanted).encode() + b"\n"), 0
    while at < len(answer):
        end = answer.index(b"\n", at)
        identity, kind, *size = answer[at:end].decode().split()
        at = end + 1
        if kind == "blob":
            yield identity, answer[at : at + int(size[0])]
            at += int(size[0]) + 1


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


def live_names(layout: Layout, manifests: Manifests) -> frozenset[str]:
    """Everything that the current dvc.lock names, with the members of its folders. Raises: ProjectError, StepFailedError."""
    if not layout.lock.exists():
        raise ProjectError("dvc.lock is missing: nothing was built yet; run `dvc repro` and retry")
    stages = parse_lock(WORKING, layout.lock.read_bytes())
    outs = {md5 for stage in stages for _, md5 in stage.outs}
    if not outs:
        raise ProjectError(DAMAGED)
    # Without its members, what is live in a folder could be taken for what is condemned.
    unknown = [md5 for md5 in outs if md5.endswith(FOLDER) and md5 not in manifests]
    if unknown:
        raise StepFailedError(f"cache: the manifest {unknown[0]} of a current out is missing; run `dvc commit --force` and retry")
    return with_members(outs | {md5 for stage in stages for _, md5 in stage.deps}, manifests)


@dataclass(frozen=True)
class Lineage:
    """Attributes: held: what each store holds; broken: run entries that cannot be read; live: see `live_names`."""

    layout: Layout
    held: Held
    instances: list[Instance]
    manifests: dict[str, dict[str, str]]
    broken: list[str]
    live: frozenset[str]
    seen: dict[str, bool | None] = field(default_factory=dict)  # md5 to whether it holds an erased record; None: unreadable

    @cached_property
    def places(self) -> dict[str, list[tuple[Store, str]]]:
        """Where each object lies."""
        found: dict[str, list[tuple[Store, str]]] = {}
        for store, held in self.held:
            for md5, keys in held.objects.items():
                found.setdefault(md5, []).extend((store, key) for key in keys)
        return found

    @cached_property
    def named(self) -> frozenset[str]:
        """Everything that a stage of some version names."""
        return with_members({md5 for one in self.instances for _, md5 in (*one.deps, *one.outs)}, self.manifests)

    def orphans(self) -> set[str]:
        """Objects that nothing names."""
        return self.places.keys() - self.named


def gather(layout: Layout) -> Lineage:
    """Raises: ProjectError for a store that purge cannot clear, StepFailedError if one cannot be reached."""
    held = [(store, contents(store)) for store in remotes.stores(layout)]
    manifests: dict[str, dict[str, str]] = {}
    instances: list[Instance] = []
    broken: list[str] = []
    runs: set[str] = set()
    for store, content in held:
        manifests |= read_manifests(store, content, manifests)
        fresh, damaged = read_runs(store, content, runs)
        instances += [Instance(RUN, *sides, run_entry=identity) for identity, sides in fresh.items()]
        runs |= fresh.keys()
        broken += damaged
    kept = [(name, (layout.private_state / name).read_bytes()) for name in kept_locks(layout)]
    versions = dict([*_blobs(layout), *kept])
    # An uncommitted version is the same as its blob most of the time: content decides, each is parsed once.
    texts = {raw: origin for origin, raw in versions.items()}
    texts |= {path.read_bytes(): WORKING for path in _working_files(layout)}
    for raw, origin in texts.items():
        instances += parse_lock(origin, raw)
    return Lineage(layout, held, instances, manifests, broken, live_names(layout, manifests))


def erased_in(stream: Any, is_erased: IsErased) -> bool | None:
    """Whether a Parquet file has a record of an erased subject; None if it is no readable Parquet with subjects."""
    try:
        if stream.read(4) != b"PAR1":
            return None
        stream.seek(0)
        if "subject" not in pq.read_schema(stream).names:
            return None
        stream.seek(0)
        column = pq.read_table(stream, columns=["subject"])["subject"]
        return any(subject is not None and is_erased(str(subject)) for subject in column.unique().to_pylist())
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return None


def _inspect(lineage: Lineage, md5: str, is_erased: IsErased) -> bool | None:
    if md5 not in lineage.seen:
        told = None
        for store, key in lineage.places.get(md5, ()):
            try:
                with store.open(key) as stream:
                    told = erased_in(stream, is_erased)
            except FileNotFoundError:
                continue
            if told is not None:
                break
        lineage.seen[md5] = told
    return lineage.seen[md5]


def _at_paths(lineage: Lineage) -> dict[str, set[str]]:
    """Every MD5 that any version names at the path of a private part or of the public file: path to MD5s."""
    root = lineage.layout.root
    public = lineage.layout.public.relative_to(root).as_posix()
    private = lineage.layout.private.relative_to(root).as_posix()
    found: dict[str, set[str]] = {}
    for one in lineage.instances:
        for path, md5 in (*one.deps, *one.outs):
            if path == public or path.startswith(private + "/"):
                found.setdefault(path, set()).add(md5)
            elif path == private:
                for member, content in lineage.manifests.get(md5, {}).items():
                    found.setdefault(f"{private}/{member}", set()).add(content)
    return found


def raw_objects(lineage: Lineage, is_erased: IsErased) -> frozenset[str]:
    """MD5s of the objects that hold a record of an erased subject, decided by their content.

    What lay at an affected path and can be read nowhere is condemned by its name: nothing shows that it was clean.
    """
    raw: set[str] = set()
    for md5s in _at_paths(lineage).values():
        told = {md5: _inspect(lineage, md5, is_erased) for md5 in md5s - lineage.live}
        if any(told.values()):
            raw |= {md5 for md5, holds in told.items() if holds is not False}
    raw |= {md5 for md5 in lineage.orphans() if not md5.endswith(FOLDER) and _inspect(lineage, md5, is_erased)}
    return frozenset(raw)


def tables(lineage: Lineage, md5s: Iterable[str]) -> Iterator[pa.Table]:
    """The records of these objects, wherever one can be read."""
    for md5 in sorted(md5s):
        for store, key in lineage.places.get(md5, ()):
            try:
                with store.open(key) as stream:
                    table = pq.read_table(stream)
            except (FileNotFoundError, pa.ArrowException, OSError):
                continue
            yield table
            break
