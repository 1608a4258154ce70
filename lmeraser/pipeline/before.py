"""The state before an erasure or an addition, linked into a folder, so that a stage can be updated instead of run whole.

    update(before, layout, params, items) = full(layout, params, items)          byte for byte, or it returns False

What a stage reads of the state before is checked against the digest that the lock recorded for it: a file that was changed by
hand, or rotted, is never carried over. Code, params and everything that public records decide must be the same; else nothing is
updated, and the stages run whole. `audit --rebuild` guards all of it, because it only knows whole runs.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lmeraser.core.code import code_digest
from lmeraser.core.digest import canonical_json
from lmeraser.core.files import DRAFT, discard, take_place, write_atomically
from lmeraser.core.layout import Layout
from lmeraser.pipeline.links import link_artifacts
from lmeraser.pipeline.locks import md5_of_file

NOTE = "before.json"


@dataclass(frozen=True)
class Before(Layout):
    """The state before.

    Attributes:
        parts: that may hold records of who leaves, where the source itself is as it was; None: the source is another one.
        digests: MD5 of each file, by its path relative to the root, as the locks and DVC's manifests have it.
    """

    parts: tuple[str, ...] | None = None
    digests: Mapping[str, str] = field(default_factory=dict)

    def is_whole(self, *paths: Path) -> bool:
        """Whether files and folders of the state before are, byte for byte, what its locks name: nothing more, nothing less."""
        return all(self._is_whole(path) for path in paths)

    def _is_whole(self, path: Path) -> bool:
        name = path.relative_to(self.root).as_posix()
        if not path.is_dir():
            return path.is_file() and md5_of_file(path) == self.digests.get(name)
        named = {inner.removeprefix(f"{name}/"): md5 for inner, md5 in self.digests.items() if inner.startswith(f"{name}/")}
        return bool(named) and named.keys() == _names(path) and all(md5_of_file(path / inner) == named[inner] for inner in named)

    def has_same(self, *paths: Path, layout: Layout) -> bool:
        """Whether files and folders of the project are those of the state before. Args: paths: of the project."""
        return all(_is_same(self.root / path.relative_to(layout.root), path) for path in paths)

    def carry_over(self, path: Path, layout: Layout, new: Mapping[str, Callable[[Path], None]] | None = None) -> bool:
        """Let a file or folder of the project (`path`) be the one of the state before. Returns: False if that has none.

        Args: new: what writes the files that are to be others, by their names in the folder, "" for the file itself.
        """
        origin = self.root / path.relative_to(layout.root)
        if not origin.exists():
            return False
        if not new and _is_linked(origin, path):
            return True
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(DRAFT + path.name)
        discard(draft)
        if origin.is_dir():
            draft.mkdir()
        for name in _names(origin):
            if new and name in new:
                new[name](draft / name)
            else:
                os.link(origin / name, draft / name)
        take_place(draft, path)
        return True


def _names(path: Path) -> set[str]:
    """The files in a folder; of a file: itself, as "", which leads back to it."""
    return {file.name for file in path.iterdir()} if path.is_dir() else {""}


def _is_linked(one: Path, other: Path) -> bool:
    """Whether two paths have the same files, as links of each other."""
    if one.is_dir() != other.is_dir() or not other.exists() or _names(one) != _names(other):
        return False
    return all((one / name).samefile(other / name) for name in _names(one))


def _is_same(one: Path, other: Path) -> bool:
    if one.is_dir() and other.is_dir():
        return _names(one) == _names(other) and all(_is_same(one / name, other / name) for name in _names(one))
    if not (one.is_file() and other.is_file()):
        return False
    if one.samefile(other):
        return True
    return one.stat().st_size == other.stat().st_size and md5_of_file(one) == md5_of_file(other)


def link_before(layout: Layout, folder: Path, digests: Mapping[str, str], parts: Iterable[str] | None) -> None:
    """Link a whole state into a folder, which is there afterwards or not at all. Takes no space."""
    draft = folder.with_name(DRAFT + folder.name)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    link_artifacts(layout, Layout(draft))
    note = {"code": code_digest(layout.root), "parts": None if parts is None else sorted(parts), "digests": dict(digests)}
    write_atomically(draft / NOTE, canonical_json(note), mode=0o600)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def open_before(folder: Path, layout: Layout) -> Before | None:
    """The state before, if the project may be updated from it: same code, params, backbone, skeleton and public records."""
    try:
        note = json.loads((folder / NOTE).read_bytes())
        parts = None if note["parts"] is None else tuple(map(str, note["parts"]))
        before = Before(folder, parts, {str(name): str(md5) for name, md5 in note["digests"].items()})
        code = str(note["code"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    frozen = (layout.params, layout.public, layout.backbone, layout.skeleton, layout.recipe)
    same = code == code_digest(layout.root) and before.has_same(*frozen, layout=layout)
    return before if same and before.is_whole(*(folder / path.relative_to(layout.root) for path in frozen[1:])) else None
