"""What is known about every version of the pipeline: its locks in the working tree, in kept copies and in all of git's history,
run-cache entries and folder manifests in every store. Facts only; `lmeraser/erase/taint.py` decides.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows import remotes
from flows.versions import WORKING, known_versions, parse_lock
from lmeraser.core.errors import ProjectError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.core.pipeline import locks
from lmeraser.erase.taint import FOLDER, RUN, Instance, Manifests, with_members
from lmeraser.prove.lock import damaged
from lmeraser.stores.base import Store
from lmeraser.stores.dvc_objects import Contents, contents, read_manifests, read_runs

IsErased = Callable[[str], bool]
Held = list[tuple[Store, Contents]]


def current_stages(layout: Layout) -> list[Instance]:
    """The stages of the current locks. Raises: ProjectError if one is missing, empty or damaged."""
    stages: list[Instance] = []
    for path in locks(layout.root):
        name = path.relative_to(layout.root).as_posix()
        if not path.exists():
            raise ProjectError(f"{name} is missing: nothing was built yet; run `dvc repro` and retry")
        found = parse_lock(WORKING, path.read_bytes())
        if not any(stage.outs for stage in found):
            raise ProjectError(damaged(name))
        stages += found
    return stages


def live_names(layout: Layout, manifests: Manifests) -> frozenset[str]:
    """Everything that the current locks name, with the members of its folders. Raises: ProjectError, StepFailedError."""
    stages = current_stages(layout)
    outs = {md5 for stage in stages for _, md5 in stage.outs}
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
    parsed: dict[bytes, list[Instance]] = {}
    for version in known_versions(layout):
        for text in version.texts:
            if text not in parsed:
                parsed[text] = parse_lock("", text)
            instances += [replace(one, origin=version.origin) for one in parsed[text]]
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
