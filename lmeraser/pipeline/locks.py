"""dvc.lock as facts: what every stage made, whether the files are what it says, and how two states differ. Runs no DVC.

With many slots there are several locks (`lmeraser/pipeline/files.py`). A path given here is that of the root's dvc.lock, and
stands for all of them: a state is whole only if each is.
"""

import hashlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lmeraser.core.digest import sha256, sha256_of_file
from lmeraser.core.errors import ProjectError
from lmeraser.core.strict_yaml import strict_yaml
from lmeraser.pipeline.files import locks

DAMAGED = "dvc.lock is empty or damaged; run `git checkout dvc.lock && dvc repro` and retry"
Outs = dict[str, str]  # path of an out to its digest (MD5, as DVC names content)
Named = tuple[tuple[str, str], ...]  # (path, MD5)
REMEMBERED = 4_000_000  # bytes of text whose trees are kept; these take some 20 times as much
ENTRY = re.compile(r"^  (?P<name>[^ ].*?):\n(?:   .*\n)*", re.MULTILINE)  # a stage as DVC writes it
SCHEMA = "schema: '2.0'\nstages:\n"
# What DVC writes most of, parsed without YAML in a twentieth of the time: texts that YAML can only take for what they show.
PLAIN_NAME = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null)$)[a-z_][a-z0-9_]*(?:@[a-z0-9_]+)?")
ITEM = (
    r"- path: {path}[A-Za-z_./][\w.@+-]*/[\w./@+-]+)\n  hash: md5\n  md5: {md5}(?!0b)(?=\d*[a-f])[0-9a-f]{{32}}(?:\.dir)?)\n"
    r"  size: {size}0|[1-9]\d*)\n(?:  nfiles: {nfiles}0|[1-9]\d*)\n)?"
)
PLAIN_ITEM = re.compile(ITEM.format(path="(?P<path>", md5="(?P<md5>", size="(?P<size>", nfiles="(?P<nfiles>"), re.ASCII)
_UNNAMED = ITEM.format(path="(?:", md5="(?:", size="(?:", nfiles="(?:")
PLAIN_ENTRY = re.compile(
    rf"cmd: (?P<cmd>[A-Za-z]\w*(?: [\w./@=-]+)+)\ndeps:\n(?P<deps>(?:{_UNNAMED})+)"
    rf"(?P<params>params:\n(?:  .*\n)+)?outs:\n(?P<outs>(?:{_UNNAMED})+)",
    re.ASCII,
)


def damaged(name: str) -> str:
    """The line about a lock that is not whole; `name` is relative to the root."""
    return DAMAGED.replace("dvc.lock", name)


class Trees:
    """Trees by the text that they were parsed from, the least used of which go when the texts are longer than REMEMBERED."""

    def __init__(self) -> None:
        self._trees: OrderedDict[bytes | str, Any] = OrderedDict()
        self._size = 0
        self._guard = threading.Lock()

    def get(self, raw: bytes | str, parse: Callable[[Any], Any]) -> Any:
        """Not to be changed. Raises: whatever parsing raises."""
        with self._guard:
            if raw in self._trees:
                self._trees.move_to_end(raw)
                return self._trees[raw]
        tree = parse(raw)
        with self._guard:
            self._size += 0 if raw in self._trees else len(raw)
            self._trees[raw] = tree
            while len(self._trees) > 1 and self._size > REMEMBERED:
                self._size -= len(self._trees.popitem(last=False)[0])
        return tree


_files, _entries, _params = Trees(), Trees(), Trees()  # of whole files; of locks' stages and their params, which versions share


def load_yaml(raw: bytes | str) -> Any:
    """What DVC wrote: a lock, a `.dvc` file or a run entry; not to be changed. Raises: ValueError if it is no YAML.

    A request asks for the same few locks and run entries a dozen times, and parsing them was a third of its own time. Git's
    history has hundreds of versions of a lock, each of which differs from others in a few stages.
    """
    return _files.get(raw, _load)


def _load(raw: bytes | str) -> Any:
    try:
        text = raw if isinstance(raw, str) else raw.decode()
        return _load_lock(text) if text.startswith(SCHEMA) else _load_entry(text)
    except ValueError:  # not as DVC writes it
        return _load_any(raw)


def _load_any(raw: bytes | str) -> Any:
    try:
        return strict_yaml(raw)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("not YAML") from error


def _load_lock(text: str) -> Any:
    """A lock, stage by stage. Raises: ValueError if it is not as DVC writes it."""
    stages = {}
    for name, entry in written_entries(text).items():
        if not PLAIN_NAME.fullmatch(name) or not entry.startswith(f"  {name}:\n"):
            raise ValueError("a name that YAML may read as something else")
        stages[name] = _entries.get(entry, _load_indented)
    return {"schema": "2.0", "stages": stages}


def _load_indented(entry: str) -> Any:
    body = entry.partition("\n")[2].replace("\n    ", "\n").removeprefix("    ")
    try:
        return _load_entry(body)
    except ValueError:
        return _load_any(body)


def _load_entry(text: str) -> dict[str, Any]:
    """A stage, as it stands in a run entry. Raises: ValueError if it is not as DVC writes it."""
    whole = PLAIN_ENTRY.fullmatch(text)
    if not whole:
        raise ValueError("not a plain entry")
    sides = {side: [_item(match) for match in PLAIN_ITEM.finditer(whole[side])] for side in ("deps", "outs")}
    return {"cmd": whole["cmd"]} | (_params.get(whole["params"], _load_any) if whole["params"] else {}) | sides


def _item(match: re.Match[str]) -> dict[str, Any]:
    item = {"path": match["path"], "hash": "md5", "md5": match["md5"], "size": int(match["size"])}
    return item | ({"nfiles": int(match["nfiles"])} if match["nfiles"] else {})


def named_of(stage: Mapping[str, object]) -> tuple[Named, Named]:
    """Deps and outs of one stage of a lock or of a run entry. Raises: ValueError, KeyError."""
    sides = []
    for side in ("deps", "outs"):
        entries = stage.get(side) or []
        if not isinstance(entries, list):
            raise ValueError("not a stage")
        named: list[tuple[str, str]] = []
        for entry in (entry for entry in entries if isinstance(entry, dict)):
            named += [(str(entry["path"]), str(entry["md5"]))] if "md5" in entry else []
            # DVC lists a folder's files here where it keeps no manifest of them.
            members = entry.get("files")
            inside = (member for member in members if isinstance(member, dict)) if isinstance(members, list) else ()
            named += [(f"{entry['path']}/{member['relpath']}", str(member["md5"])) for member in inside if "md5" in member]
        sides.append(tuple(named))
    return sides[0], sides[1]


def written_entries(text: str) -> dict[str, str]:
    """A lock's text by stage, each entry as it is written. Raises: ValueError if it is not as DVC writes it."""
    entries = {match["name"].strip("'\""): match[0] for match in ENTRY.finditer(text)}
    if text != SCHEMA + "".join(entries.values()):
        raise ValueError("not as DVC writes it")
    return entries


def outs_of(path: Path, name: str) -> dict[str, Outs]:
    """The outs of each stage of one lock. Raises: ProjectError if it is not whole."""
    try:
        return outs_in(path.read_text(encoding="utf-8").encode(), name)  # as others ask for it, who have bytes
    except FileNotFoundError as error:
        raise ProjectError(f"{name} is missing: nothing was built yet; run `dvc repro` and retry") from error
    except UnicodeDecodeError as error:
        raise ProjectError(damaged(name)) from error


def outs_in(text: bytes, name: str) -> dict[str, Outs]:
    """The outs of each stage of a lock's text. Raises: ProjectError if it is not whole."""
    try:
        stages: dict[str, Any] = load_yaml(text)["stages"]
        outs = {name: {str(out["path"]): str(out["md5"]) for out in stage.get("outs", [])} for name, stage in stages.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProjectError(damaged(name)) from error
    if not outs:
        raise ProjectError(damaged(name))
    return outs


def recorded_dep(lock: Path, stage: str, path: str) -> str | None:
    """The digest of what a stage was last run on; None where the lock does not tell. Args: path: as dvc.yaml names it."""
    try:
        deps, _ = named_of(load_yaml(lock.read_bytes())["stages"][stage])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return dict(deps).get(path)


def outs_by_stage(path: Path) -> dict[str, Outs]:
    """The outs of each stage, by its plain name. Raises: ProjectError if a lock is missing or not whole."""
    root = path.parent
    recorded = [outs_of(lock, lock.relative_to(root).as_posix()) for lock in [path, *locks(root)[1:]]]
    return {stage: outs for stages in recorded for stage, outs in stages.items()}


def read_outs(path: Path) -> Outs:
    """Every out that is recorded. Raises: ProjectError if a lock is missing or not whole."""
    return {out: md5 for outs in outs_by_stage(path).values() for out, md5 in outs.items()}


def digest_of_locks(root: Path) -> str:
    """SHA-256 of all locks with their names: one state of the pipeline."""
    lines = [f"{lock.relative_to(root).as_posix()} {sha256_of_file(lock)}\n" for lock in locks(root) if lock.exists()]
    return sha256("".join(lines).encode())


def md5_of_file(path: Path) -> str:
    """As DVC names content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def digest_of_folder(members: Mapping[str, str]) -> str:
    """A folder's content as DVC names it (dvc_data.hashfile.tree.Tree.as_bytes). Args: members: MD5 by relative path."""
    entries = [{"md5": md5, "relpath": name} for name, md5 in sorted(members.items())]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _digest(path: Path) -> str | None:
    """A file's or a folder's content as DVC names it; None if there is nothing."""
    if path.is_file():
        return md5_of_file(path)
    if not path.is_dir():
        return None
    return digest_of_folder({file.relative_to(path).as_posix(): md5_of_file(file) for file in path.rglob("*") if file.is_file()})


def read_files(root: Path, outs: Iterable[str]) -> Outs:
    """The digests of the files themselves, by their bytes: neither a lock nor a time is believed. What is missing is left out."""
    digests = {out: _digest(root / out) for out in outs}
    return {out: digest for out, digest in digests.items() if digest is not None}


@dataclass(frozen=True)
class Comparison:
    """Attributes: artifacts: how many were compared; differing: paths that differ or stand on one side alone, sorted."""

    artifacts: int
    differing: list[str]

    @property
    def equal(self) -> bool:
        """Comparing nothing proves nothing."""
        return self.artifacts > 0 and not self.differing


def compare(before: Mapping[str, str], after: Mapping[str, str]) -> Comparison:
    paths = sorted(before.keys() | after.keys())
    return Comparison(len(paths), [path for path in paths if before.get(path) != after.get(path)])
