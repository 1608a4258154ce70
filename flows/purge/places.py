"""Which stores and folders a scan looks into: every place that the project controls; and what of it is not looked into.

Not looked into are git's own folder, virtual environments, and the source if params keep it.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from flows.dvc import config as remotes
from flows.purge.leftovers import abandoned_audits
from flows.purge.prefect_events import prefect_home
from flows.purge.search_terms import kept_files
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.stores.base import Store
from lmeraser.stores.bucket import BucketStore
from lmeraser.stores.folder import FolderStore

ENVIRONMENT = ("bin", "include", "lib", "lib64", "share", "Scripts", "Include", "Lib")  # what venv and pip write
PROGRAMS = ("bin/python", "Scripts/python.exe")


@dataclass(frozen=True)
class Workspace(FolderStore):
    """The project's folder without its virtual environments, at any depth: other folders that hold a pyvenv.cfg are as any.

    Attributes: environments: folders of them that were left out, known once the store was listed.
    """

    environments: set[str] = field(default_factory=set, compare=False)

    def children(self, prefix: str) -> "list[os.DirEntry[str]]":
        children = super().children(prefix)
        if prefix.startswith(".dvc/") or not any(child.name == "pyvenv.cfg" for child in children):
            return children
        if not any(os.path.lexists(self.root / prefix / program) for program in PROGRAMS):
            return children
        named = (child for child in children if child.name in ENVIRONMENT)
        ours = {child.name for child in named if os.path.isdir(child.path)}  # noqa: PTH112 (a link in a loop is no error)
        self.environments.update(f"{prefix}{name}" for name in ours)
        # A link's name is looked at like any other; what it leads to lies elsewhere.
        return [child for child in children if child.name not in ours or child.is_symlink()]


@dataclass(frozen=True)
class Places:
    """Attributes: stores: all that is looked into; always, at_last: what is not, in words without names."""

    workspace: Workspace
    others: list[Store]
    always: list[str]
    at_last: list[str]

    @property
    def stores(self) -> list[Store]:
        return [self.workspace, *self.others]

    def exempt(self) -> list[str]:
        """What is not looked into, in words without names. To be asked after the stores were listed."""
        count = len(self.workspace.environments)
        left_out = [f"{count} folders of virtual environments (bin, lib, include beside a pyvenv.cfg)"] if count else []
        return [*self.always, *left_out, *self.at_last]


def _inside(layout: Layout, path: Path) -> str | None:
    """A path below the project, relative to it; None if it lies elsewhere."""
    path = path.resolve()
    return path.relative_to(layout.root).as_posix() if path != layout.root and path.is_relative_to(layout.root) else None


def places(layout: Layout, params: Params) -> Places:
    """Every place that the project controls. Raises: ProjectError for a remote of a kind that purge cannot clear."""
    stores, site, prefect = remotes.stores(layout), remotes.site_folders(layout), prefect_home()
    source = layout.root / params.source.path
    apart = [store.root for store in stores if isinstance(store, FolderStore)] + site + [layout.private_state, prefect]
    always = ["git's own folder: the repository's history keeps the files of older commits, also those that name people"]
    if not params.source.erase:
        apart.append(source)
        always.append("the source: source.erase is false")
    at_last = []
    if any(isinstance(store, BucketStore) for store in stores):
        at_last.append("older versions in a bucket under keys that are not condemned: listed, not read")
    kept = frozenset(path.name for path in kept_files(layout))
    if kept:
        at_last.append("what this scan looks for, kept in .lmeraser until nothing of it is found")
    skip = frozenset(name for path in apart if (name := _inside(layout, path)))
    others: list[Store] = [FolderStore("ledger, keys and logs", layout.private_state, skip=kept)]
    others += stores
    others += [FolderStore("dvc site", path) for path in site]
    others += [FolderStore("temporary files", path) for path in abandoned_audits(layout)]
    others.append(FolderStore("prefect", prefect))
    if params.source.erase and _inside(layout, source) is None:
        others.append(FolderStore("source", source if source.is_dir() else source.parent))
    return Places(Workspace("workspace", layout.root, skip=skip | {".git"}), others, always, at_last)
