"""A copy of the project with all its stores, for a drill: backups of it, and restores of some of its stores.

Nothing of the copy leads back: cache, remotes, source and keys are copies too, and DVC's settings and params name those.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from flows import git
from flows.dvc import config as remotes
from flows.project import Project
from lmeraser.core.errors import BadInputError
from lmeraser.core.files import discard, write_atomically
from lmeraser.core.layout import LEDGER_VARIABLE, Layout
from lmeraser.core.own_code import PROJECT_VARIABLE
from lmeraser.erase import erased
from lmeraser.prove import keys
from lmeraser.stores.folder import FolderStore

PROJECT, BACKUP, KEPT = "project", "backup", "kept"  # folders of a drill
LEDGER, STATE, TREE = "ledger", "private state", "working tree"
LEFT_OUT = (".venv", ".demo", "dvc_plots", "__pycache__")
RUNNING = ("warm", "prefect", "logs", "quarantine", "server.json", "server.auth")  # of .lmeraser: of a service, no state
VARIABLES = (erased.KEY_VARIABLE, keys.KEY_VARIABLE, PROJECT_VARIABLE)  # what names something outside the copy


@dataclass(frozen=True)
class Copy:
    """Attributes: folder: holds the project and everything that belongs to it; places: what belongs to each store, below it."""

    folder: Path
    places: dict[str, tuple[str, ...]]

    @property
    def layout(self) -> Layout:
        return Layout(self.folder / PROJECT)

    @property
    def kept(self) -> Path:
        """Where certificates are kept elsewhere."""
        return self.folder / KEPT

    def keep_certificates(self) -> None:
        shutil.copytree(self.layout.certificates, self.kept, dirs_exist_ok=True)

    def back_up(self) -> None:
        """Copy every store as it is now."""
        for name in self._names(self.places):
            _copy(self.folder / name, self.folder / BACKUP / name)

    def restore(self, stores: Iterable[str]) -> None:
        """Make stores what they were at the backup; what came later is gone."""
        for name in self._names(stores):
            discard(self.folder / name)
            _copy(self.folder / BACKUP / name, self.folder / name)

    def _names(self, stores: Iterable[str]) -> list[str]:
        names = {name for store in stores for name in self.places[store]}
        if {TREE} & set(stores):
            names |= {f"{PROJECT}/{path.name}" for path in self._tree()}
        return sorted(names)

    def _tree(self) -> Iterator[Path]:
        """What lies in the project's folder and is no other store's."""
        own = {f"{PROJECT}/.dvc", *(name for names in self.places.values() for name in names)}
        for root in (self.folder / PROJECT, self.folder / BACKUP / PROJECT):
            for path in root.iterdir() if root.is_dir() else ():
                if f"{PROJECT}/{path.name}" not in own:
                    yield path


def _copy(origin: Path, target: Path, ignore: tuple[str, ...] = ()) -> None:
    if origin.is_dir():
        shutil.copytree(origin, target, symlinks=True, ignore=shutil.ignore_patterns(*ignore))
    elif origin.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(origin, target)


def copy_project(project: Project, folder: Path) -> Copy:
    """Copy a project and its stores into an empty folder. Raises: BadInputError for a store that is no folder."""
    layout, root = project.layout, folder / PROJECT
    if os.environ.get(LEDGER_VARIABLE):
        raise BadInputError(
            f"the ledger is in a database server ({LEDGER_VARIABLE}), and a drill copies files alone: it is untested there; "
            "drill with a project whose ledger is a file"
        )
    stores = remotes.stores(layout)
    elsewhere = [store.name for store in stores if not isinstance(store, FolderStore)]
    if elsewhere:
        raise BadInputError(
            f"{elsewhere[0]} is no folder, and a drill copies folders alone: it is untested there; drill in a clone whose remote "
            "is a folder"
        )
    project.ledger.scrub()  # what is in its log is then in its file
    _copy(layout.root, root, LEFT_OUT)
    for name in RUNNING:
        discard(root / layout.private_state.name / name)
    for file, name in ((project.key_file, "subject.key"), (keys.signing_key_path(layout.private_state), "certificate.key")):
        if file.exists():
            write_atomically(root / layout.private_state.name / name, file.read_bytes(), mode=0o600)
    places = _copy_stores(layout, folder, [store for store in stores if isinstance(store, FolderStore)])
    places |= _copy_source(project, folder)
    state = f"{PROJECT}/{layout.private_state.name}"
    places |= {
        LEDGER: tuple(f"{state}/{layout.ledger.name}{suffix}" for suffix in ("", "-wal", "-shm")),
        STATE: (state,),
        TREE: (),
    }
    _own_repository(root)
    return Copy(folder, places)


def _copy_stores(layout: Layout, folder: Path, stores: Iterable[FolderStore]) -> dict[str, tuple[str, ...]]:
    """Copy cache and remotes, and let DVC's own settings of the copy name them."""
    from configobj import ConfigObj  # type: ignore[import-untyped]  # what DVC itself parses them with

    places: dict[str, tuple[str, ...]] = {}
    settings = folder / PROJECT / ".dvc" / "config.local"
    lines = settings.read_text(encoding="utf-8").splitlines() if settings.exists() else []
    config = ConfigObj(lines, interpolation=False)
    for store in stores:
        name = store.name.replace(" ", "-")
        if remotes.is_own(layout, store):
            places[store.name] = (f"{PROJECT}/{store.root.resolve().relative_to(layout.root.resolve()).as_posix()}",)
            continue
        _copy(store.root, folder / name)
        (folder / name).mkdir(exist_ok=True)
        places[store.name] = (name,)
        title, key = (
            (remotes.CACHE, "dir") if store.name == remotes.CACHE else (f'remote "{store.name.partition(" ")[2]}"', "url")
        )
        config[title] = dict(config.get(title, {})) | {key: str(folder / name)}
    text = "\n".join(config.write())
    write_atomically(settings, f"{text}\n".encode())
    return places


def _copy_source(project: Project, folder: Path) -> dict[str, tuple[str, ...]]:
    """The source of the copy: a copy where erasures clear it; else it is only read, where it lies."""
    layout, root = project.layout, folder / PROJECT
    source = (layout.root / project.params.source.path).absolute()
    if source.is_relative_to(layout.root.absolute()):
        return {"source": (f"{PROJECT}/{source.relative_to(layout.root.absolute()).as_posix()}",)}
    place = source
    if project.params.source.erase:
        shown = source if source.is_dir() else source.parent
        _copy(shown, folder / "source")
        place = folder / "source" / source.relative_to(shown)
    params = Layout(root).params
    raw = yaml.safe_load(params.read_text(encoding="utf-8"))
    raw["source"]["path"] = str(place)
    params.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return {"source": ("source",)} if place != source else {}


def _own_repository(root: Path) -> None:
    """A repository of the copy's own: a file named .git leads to another one, and hooks are somebody's programs."""
    if (root / ".git").is_dir():
        discard(root / ".git" / "hooks")
        discard(root / ".git" / "worktrees")
    else:
        discard(root / ".git")
        git.init(root)
    commit(root, "before the drill")


def commit(root: Path, message: str) -> None:
    """Commit what the copy's repository would keep, if anything changed."""
    if git.run(root, "status", "--porcelain").stdout.strip():
        git.commit_all(root, "lmeraser drill", "drill@localhost", message)


@contextmanager
def apart(folder: Path) -> Iterator[None]:
    """Let nothing that this process or its children do in a copy reach what variables of the environment name."""
    before = dict(os.environ)
    for name in VARIABLES:
        os.environ.pop(name, None)
    os.environ["PREFECT_HOME"] = str(folder / "prefect")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
