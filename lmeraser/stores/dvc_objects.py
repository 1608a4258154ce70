"""A store as DVC fills it, cache and remote alike.

    files/md5/ab/cdef...          an object, named by its MD5; a folder's manifest ends in `.dir`
    ab/cdef...                    the same, as DVC 2 wrote it
    runs/ab/abcd.../0123...       a run-cache entry: what a stage made of what (YAML); id `abcd.../0123...`

Anything else in these places is a leftover of a copy that was killed: it may hold anything.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from lmeraser.pipeline.locks import Named, digest_of_folder, load_yaml, named_of
from lmeraser.stores.base import Entry, Store, entries_of, unreachable

OBJECT = re.compile(r"(?:files/md5/)?([0-9a-f]{2})/([0-9a-f]{30}(?:\.dir)?)")
ENTRY = re.compile(r"runs/[0-9a-f]{2}/([0-9a-f]{64}/[0-9a-f]{64})")
OURS = re.compile(r"(?:files/|runs/|[0-9a-f]{2}/)")


@dataclass(frozen=True)
class Contents:
    """What a store holds. Attributes: objects: MD5 to keys; runs: id to key; leftovers: keys; others: keys that are not DVC's."""

    objects: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    runs: dict[str, str] = field(default_factory=dict)
    leftovers: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)  # by key


def files(store: Store) -> list[Entry]:
    """Files and links. Raises: StepFailedError if it cannot be listed, or not whole."""
    entries = entries_of(store)
    for closed in (entry for entry in entries if entry.kind == "closed"):
        raise unreachable(store.name, closed.reason)
    return [entry for entry in entries if entry.kind in ("file", "link")]


def contents(store: Store, listing: Iterable[Entry] | None = None) -> Contents:
    """Args: listing: its files, for who has asked it already. Raises: StepFailedError if it cannot be listed."""
    classified = Contents()
    for entry in files(store) if listing is None else listing:
        key = entry.key
        classified.entries[key] = entry
        if match := OBJECT.fullmatch(key):
            classified.objects[match[1] + match[2]].append(key)
        elif match := ENTRY.fullmatch(key):
            classified.runs[match[1]] = key
        elif OURS.match(key):
            classified.leftovers.append(key)
        else:
            classified.others.append(key)
    return classified


def parse_manifest(raw: bytes) -> dict[str, str]:
    """Members of a `.dir` object: relative path to MD5. Raises: ValueError if it is none."""
    try:
        return {str(member["relpath"]): str(member["md5"]) for member in json.loads(raw)}
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError("not a manifest") from error


def inner_folders(manifests: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """The manifests of the folders within folders, by the digest under which a lock names one as a dependency.

    DVC stores no object of them. Where parts have shards, `embed` depends on a folder within the out `artifacts/split/private`.
    """
    inner: dict[str, dict[str, str]] = {}
    for members in manifests.values():
        folders: dict[str, dict[str, str]] = defaultdict(dict)
        for path, md5 in members.items():
            for parent in PurePosixPath(path).parents[:-1]:
                folders[str(parent)][path.removeprefix(f"{parent}/")] = md5
        inner |= {digest_of_folder(within): within for within in folders.values()}
    return inner


def parse_run(raw: bytes) -> tuple[Named, Named]:
    """Deps and outs of a run entry. Raises: ValueError if it is none."""
    try:
        stage = load_yaml(raw)
    except ValueError as error:
        raise ValueError("not a run entry") from error
    if not isinstance(stage, dict):
        raise ValueError("not a run entry")
    try:
        return named_of(stage)
    except KeyError as error:
        raise ValueError("not a run entry") from error


def read_manifests(store: Store, contents: Contents, known: Iterable[str] = ()) -> dict[str, dict[str, str]]:
    """The manifests of a store that are not known yet; a damaged one has no members that could be trusted and is left out."""
    done = set(known)
    keys = {md5: keys[0] for md5, keys in contents.objects.items() if md5.endswith(".dir") and md5 not in done}
    raw = store.read(keys.values())
    manifests = {}
    for md5, key in keys.items():
        try:
            manifests[md5] = parse_manifest(raw[key])
        except (KeyError, ValueError):
            continue
    return manifests


def read_runs(store: Store, contents: Contents, known: Iterable[str] = ()) -> tuple[dict[str, tuple[Named, Named]], list[str]]:
    """Run entries of a store that are not known yet, and the ids of damaged ones (DVC drops them too)."""
    done = set(known)
    keys = {identity: key for identity, key in contents.runs.items() if identity not in done}
    raw = store.read(keys.values())
    runs, damaged = {}, []
    for identity, key in keys.items():
        if key not in raw:
            continue
        try:
            runs[identity] = parse_run(raw[key])
        except ValueError:
            damaged.append(identity)
    return runs, damaged
