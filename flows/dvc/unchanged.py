"""Which stages need not be asked about: DVC found them up to date, and nothing that it would look at is another since.

Of each stage a fingerprint is remembered, in `.lmeraser/unchanged.json`: one SHA-256 over

    all stages      DVC's version and config files, every pipeline file, params.yaml, every .dvcignore
    of the stage    its entry in the lock; inode, size and time of modification of each dep and out, and of each file below it;
                    the same of each out's object in the cache, and of each object that a folder's manifest names

It believes inode, size and time of modification, as DVC's own memory does: neither sees bytes that somebody changes in place if
he sets their time back. What it says is what DVC would say, while its reasoning holds; where it may not (another version of DVC,
stages that are none of this project's, imports, frozen stages, links in what stages read), DVC is asked about everything.

Identities are taken before DVC is asked. So what changes meanwhile has another fingerprint the next time.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flows.dvc.config import cache, config_files
from flows.dvc.definitions import is_of_root, lists_of, names_of, require_plain
from flows.dvc.identities import Identities, UndecidedError
from flows.dvc.once import KNOWN
from flows.dvc.status import is_free
from lmeraser.core.digest import canonical_json, sha256
from lmeraser.core.errors import LmeraserError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.params import read_params
from lmeraser.pipeline.files import LOCK, ROOT_FILE
from lmeraser.pipeline.locks import load_yaml
from lmeraser.stores.dvc_objects import parse_manifest

FORMAT = 1
PARAMS = "params.yaml"
ENTRY_KEYS = {"cmd", "deps", "params", "outs"}
FILE_KEYS = {"path", "hash", "md5", "size", "nfiles", "isexec"}
FOLDER = ".dir"
UNREADABLE = (
    OSError,
    UndecidedError,
    LmeraserError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    StopIteration,
    RecursionError,
)


@dataclass(frozen=True)
class Fingerprints:
    """Attributes: common: of what all stages share; stages: by the stage's address (`tune/03/dvc.yaml:tune@c7`)."""

    common: str
    stages: Mapping[str, str]


def take(layout: Layout) -> Fingerprints | None:
    """Fingerprints of all stages at this moment; None where DVC must be asked about everything."""
    try:
        return _take(layout)
    except UNREADABLE:
        return None


def known(layout: Layout, now: Fingerprints) -> set[str] | None:
    """Addresses of the stages that are as they were when DVC found them up to date; None if nothing of use is remembered."""
    try:
        told = json.loads(layout.unchanged.read_bytes())
        stages: dict[str, object] = told["stages"]
        if (told["format"], told["common"]) != (FORMAT, now.common) or stages.keys() != set(map(_key, now.stages)):
            return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return {address for address, fingerprint in now.stages.items() if stages[_key(address)] == fingerprint}


def remember(layout: Layout, now: Fingerprints, stale: Iterable[str]) -> None:
    """Remember what DVC found of the stages with these fingerprints. Args: stale: addresses of those that are not up to date."""
    stale = set(stale)
    if not stale <= now.stages.keys() or not layout.private_state.is_dir():
        with suppress(OSError):
            layout.unchanged.unlink(missing_ok=True)
        return
    stages = {_key(address): None if address in stale else fingerprint for address, fingerprint in now.stages.items()}
    text = canonical_json({"format": FORMAT, "common": now.common, "stages": stages})
    with suppress(OSError):  # it saves time and proves nothing: a folder that cannot be written is told where it matters
        if not layout.unchanged.exists() or layout.unchanged.read_bytes() != text:
            write_atomically(layout.unchanged, text, mode=0o600)


def _key(address: str) -> str:
    return sha256(address.encode())


def _take(layout: Layout) -> Fingerprints:
    dvc = version("dvc")
    place = layout.root / ".dvc"
    if dvc not in KNOWN or not place.is_dir() or not is_free(place / "tmp" / "rwlock"):  # else it may be of a folder above
        raise UndecidedError
    root = str(layout.root)
    found = Identities(root, str(layout.private_state))
    files = sorted(os.path.relpath(path, root) for path in found.stage_files)
    if not files or not all(map(is_of_root, files)):
        raise UndecidedError
    texts = [*files, *(str(Path(file).with_name(PARAMS)) for file in files), *sorted(found.ignore_files)]
    config = [_content(path) for path in config_files(layout)]
    common = sha256(canonical_json([FORMAT, dvc, config, [(name, _content(layout.root / name)) for name in texts]]))
    objects = _Objects(f"{cache(layout).root}/files/md5")
    stages = {
        name if file == ROOT_FILE else f"{file}:{name}": _fingerprint(common, entry, found, objects)
        for file, entries in _recorded(layout, files).items()
        for name, entry in entries.items()
    }
    return Fingerprints(common, stages)


def _content(path: Path) -> str | None:
    """A small file's digest; None where there is none."""
    try:
        return sha256(path.read_bytes())
    except FileNotFoundError:
        return None


def _recorded(layout: Layout, files: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The locks' entries by pipeline file. Raises: UndecidedError unless they are of its stages, each of a kind that is known."""
    params = read_params(layout.params)
    lists = lists_of(params.parts, params.slots)
    recorded: dict[str, dict[str, Any]] = {}
    names: list[str] = []
    for file in files:
        path = layout.root / file
        definition = load_yaml(path.read_bytes())
        require_plain(definition, file)
        defined = names_of(definition["stages"], lists)
        lock = path.with_name(LOCK)
        entries = load_yaml(lock.read_bytes())["stages"] if defined or lock.exists() else {}
        if entries.keys() != set(defined):
            raise UndecidedError
        recorded[file] = entries
        names += defined
    if len(set(names)) != len(names):
        raise UndecidedError
    return recorded


def _fingerprint(common: str, entry: Mapping[str, Any], found: Identities, objects: "_Objects") -> str:
    deps, outs = entry["deps"], entry.get("outs") or []
    if not entry.keys() <= ENTRY_KEYS or not deps:
        raise UndecidedError
    for file in (*deps, *outs):
        if not file.keys() <= FILE_KEYS or file["hash"] != "md5" or "://" in file["path"]:
            raise UndecidedError
    paths = [file["path"] for file in (*deps, *outs)] + sorted(set(entry.get("params") or ()) - {PARAMS})
    facts: list[object] = [common, entry]
    facts += [found.of(os.path.normpath(f"{found.root}/{path}" if path[0] != "/" else path)) for path in paths]
    facts += [objects.of(file["md5"]) for file in outs]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class _Objects:
    """Objects of DVC's cache by inode, size and time; a folder's with those that its manifest names."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._known: dict[str, str | None] = {}

    def of(self, digest: str) -> str | None:
        """None where it is not there."""
        if digest not in self._known:
            own = self._one(digest)
            if own is not None and digest.endswith(FOLDER):
                members = parse_manifest(Path(self._path(digest)).read_bytes())
                own = sha256("\n".join([own, *(str(self.of(member)) for member in members.values())]).encode())
            self._known[digest] = own
        return self._known[digest]

    def _path(self, digest: str) -> str:
        return f"{self._folder}/{digest[:2]}/{digest[2:]}"

    def _one(self, digest: str) -> str | None:
        try:
            facts = os.stat(self._path(digest))  # noqa: PTH116  (thousands of them)
        except FileNotFoundError:
            return None
        return f"{facts.st_dev} {facts.st_ino} {facts.st_size} {facts.st_mtime_ns} {facts.st_mode}"
