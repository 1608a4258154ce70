"""Where a source may lie, and what must hold for it before hours of training: asked at the start of a build, of `split`, and of a
request.

DVC hashes the source when a stage is recorded, which may be long after. What it would refuse then, or what would make an erasure
stick for ever, is refused here. Messages name no file: its name may be a person.
"""

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from lmeraser.core.code import PACKAGES
from lmeraser.core.errors import ParamsError
from lmeraser.core.params import PublishedSource as PublishedParams
from lmeraser.core.params import Source as SourceParams

# Of the project itself: a build deletes, DVC hashes or git keeps what lies there.
OWN_FOLDERS = ("artifacts", ".dvc", ".lmeraser", ".git", "metrics", "certificates", "tune", *PACKAGES)
NOT_HASHED = {".git", ".hg", ".dvc", "__pycache__"}  # by DVC, which passes them over
NOT_SEARCHED = NOT_HASHED | {"artifacts", ".lmeraser", ".venv", "venv", "node_modules", "site-packages"}


def check_place(path: Path, root: Path) -> None:
    """Raise ParamsError if a source lies in the project's own folders, or holds one of them; links are followed."""
    places = {Path(os.path.normpath(path.absolute())), path.resolve()}
    for name in OWN_FOLDERS:
        for own in {root.absolute() / name, (root / name).resolve()}:
            if any(place.is_relative_to(own) for place in places):
                raise ParamsError(
                    f"params.yaml: source.path lies in {name}/, one of the project's own folders, whose content a build deletes "
                    "or records; move your data elsewhere (data/NAME is fine) and set source.path to it"
                )
            if path.is_dir() and any(own.is_relative_to(place) for place in places):
                raise ParamsError(
                    f"params.yaml: source.path holds the project's own folder {name}/, which changes with every build; put your "
                    "images into a folder of their own and set source.path to it"
                )
    if path.is_dir() and (root / "data").resolve() in places:
        raise ParamsError(
            "params.yaml: source.path is data/, which holds the project's own lists; put your images into a folder below it"
        )


def check_untracked(params: SourceParams | PublishedParams, root: Path) -> None:
    """Raise ParamsError if DVC tracks the source: its copies in cache and remotes are the user's, and no erasure reaches them."""
    if tracked(root / params.path, root, everywhere=params.erase):
        raise ParamsError(
            "params.yaml: DVC tracks source.path itself (`dvc add`, `dvc import`, a dvc.yaml), and an erasure does not reach its "
            "copies; `dvc remove` its .dvc file, add it to .gitignore, delete what DVC's cache and remotes hold of it, and retry"
        )


def check_tree(folder: Path) -> None:
    """Raise ParamsError if DVC could not hash a folder. Tells how many files and how to list them, never their names."""
    dangling = unnamed = closed = special = 0
    shut: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=shut.append):
        folders[:] = [name for name in folders if name not in NOT_HASHED]
        unnamed += sum(not _is_utf8(name) for name in (*folders, *files))
        for name in files:
            full = os.path.join(place, name)  # noqa: PTH118  (a million of them)
            try:
                mode = os.stat(full).st_mode  # noqa: PTH116
            except PermissionError:
                closed += 1
            except OSError:
                dangling += 1
            else:
                special += not stat.S_ISREG(mode)
                closed += stat.S_ISREG(mode) and not os.access(full, os.R_OK)
    for count, what, test in (
        (dangling, "links that lead nowhere", "-xtype l"),
        (unnamed, "names that are not UTF-8", "| grep -avx '.*'"),
        (special, "entries that are not files (pipes, sockets)", "! -type f ! -type d ! -type l"),
        (closed + len(shut), "files or folders that cannot be read", "! -readable"),
    ):
        if count:
            raise ParamsError(
                f"params.yaml: source.path holds {count} {what}, so DVC cannot record it; correct, move or delete them "
                f"(`find SOURCE {test}` lists them) and retry"
            )


def _is_utf8(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def tracked(source: Path, root: Path, everywhere: bool = False) -> bool:
    """Whether a .dvc file or another stage's out names the source, something in it, or a folder above it.

    Args: everywhere: also for a source outside of the project's repository, which is another repository's.
    """
    home = next((folder for folder in (root, *root.parents) if (folder / ".dvc").is_dir()), root)
    places = {Path(os.path.normpath(source.absolute())), source.resolve()}
    files = list(_pipeline_files(home, {root / name for name in OWN_FOLDERS}))
    if everywhere or source.resolve().is_relative_to(home.resolve()):
        files += [file for place in places for folder in place.parents for file in _beside(folder)]
    if source.is_dir():
        files += _pipeline_files(source)
    outs = (out for file in dict.fromkeys(files) for out in _outs(file))
    return any(place.is_relative_to(out) or out.is_relative_to(place) for out in outs for place in places)


def _pipeline_files(folder: Path, own: Collection[Path] = ()) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        inner = [name for name in folders if name not in NOT_SEARCHED and Path(place, name) not in own]
        # A repository in a repository is its own.
        folders[:] = [name for name in inner if not Path(place, name, ".dvc").is_dir()]
        yield from (Path(place, name) for name in files if name == "dvc.yaml" or (name.endswith(".dvc") and name != ".dvc"))


def _beside(folder: Path) -> list[Path]:
    try:
        return [file for file in folder.iterdir() if file.suffix == ".dvc" and file.is_file()]
    except OSError:
        return []


def _outs(file: Path) -> Iterator[Path]:
    """The places of a .dvc or dvc.yaml file's outs; those with a variable are the pipeline's own."""
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return  # DVC itself refuses a broken one
    stages = list((raw.get("stages") or {}).values()) if isinstance(raw, dict) and file.name == "dvc.yaml" else [raw]
    for stage in stages:
        inner: Any = stage.get("do", stage) if isinstance(stage, dict) else None
        if not isinstance(inner, dict):
            continue
        folder = file.parent / str(inner.get("wdir", "."))
        for out in inner.get("outs") or ():
            # In a .dvc file an out is its facts, `path` among them; in dvc.yaml a name, alone or with its options.
            names = [out["path"]] if isinstance(out, dict) and "path" in out else [out] if isinstance(out, str) else [*out]
            for name in names:
                if isinstance(name, str) and "${" not in name and "://" not in name:
                    yield Path(os.path.normpath((folder / name).absolute()))
