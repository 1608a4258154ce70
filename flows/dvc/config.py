"""Where this project's DVC keeps copies: the cache and every remote, as DVC's config files name them.

The files are read directly (machine, user, project, local; later ones win): `dvc config` would take a process and a second.
Purge knows folders and S3. A remote of another kind is refused while planning, before anything is destroyed; there is no switch
to skip one: clear it yourself, then remove it from the config.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

from flows.processes import environment_of
from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.stores.base import Store
from lmeraser.stores.bucket import BucketStore
from lmeraser.stores.folder import FolderStore

CACHE = "cache"
NAMED = re.compile(r'remote\s*"(?P<name>.*)"', re.IGNORECASE)
SCHEME = re.compile(r"(\w+)://")
FOLDERS = ("a folder", "file", "local")  # schemes of remotes that are one
Settings = dict[str, dict[str, str]]


def _user_files() -> list[Path]:
    """DVC's config of the machine and of the user, where platformdirs puts them."""
    if sys.platform == "darwin":
        system, user = Path("/Library/Application Support"), Path("~/Library/Application Support").expanduser()
    else:
        system = Path(os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(os.pathsep)[0])
        user = Path(os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser())
    folders = [
        Path(os.environ.get("DVC_SYSTEM_CONFIG_DIR") or system / "dvc"),
        Path(os.environ.get("DVC_GLOBAL_CONFIG_DIR") or user / "dvc"),
    ]
    return [folder / "config" for folder in folders]


def _resolved(folder: Path, url: str) -> str:
    """A path in a config file is relative to that file's folder."""
    return url if SCHEME.match(url) else os.path.normpath(folder / Path(url).expanduser())


def config_files(layout: Layout) -> list[Path]:
    """DVC's config files, whether they are there or not; later ones win."""
    return [*_user_files(), layout.root / ".dvc" / "config", layout.root / ".dvc" / "config.local"]


def read_config(layout: Layout) -> Settings:
    """Sections with lower-case keys; a remote is `remote NAME`. Raises: ProjectError if a file is damaged."""
    from configobj import ConfigObj, ConfigObjError  # type: ignore[import-untyped]  # what DVC itself parses them with

    merged: Settings = {}
    for path in config_files(layout):
        if not path.is_file():
            continue
        try:
            raw: dict[str, Any] = ConfigObj(str(path), encoding="utf-8", interpolation=False).dict()
        except (ConfigObjError, UnicodeDecodeError) as error:
            raise ProjectError(
                f"DVC's {path.name} file cannot be parsed; fix it (`dvc config --list` shows where) and retry"
            ) from error
        for title, section in raw.items():
            if not isinstance(section, dict):
                continue
            match = NAMED.fullmatch(title)
            name = f"remote {match['name'].lower()}" if match else title.lower()
            settings = {str(key).lower(): str(value) for key, value in section.items()}
            for key in ("url", "dir"):
                if key in settings:
                    settings[key] = _resolved(path.parent, settings[key])
            merged[name] = merged.get(name, {}) | settings
    return merged


def cache(layout: Layout, config: Settings | None = None) -> FolderStore:
    config = read_config(layout) if config is None else config
    return FolderStore(CACHE, Path(config.get(CACHE, {}).get("dir", layout.root / ".dvc" / "cache")))


def _follow(name: str, config: Settings) -> dict[str, str]:
    """A remote's settings; `remote://other/sub` is a place in another remote."""
    settings = config[name]
    seen = {name}
    while settings.get("url", "").startswith("remote://"):
        other, _, rest = settings["url"].removeprefix("remote://").partition("/")
        base = f"remote {other.lower()}"
        if base not in config or base in seen:
            raise ProjectError(
                f"{name} refers to {base}, which is missing from DVC's config or refers back to it; fix the config and retry"
            )
        seen.add(base)
        settings = config[base] | {"url": config[base].get("url", "").rstrip("/") + "/" + rest}
    return settings


def _scheme(url: str) -> str:
    match = SCHEME.match(url)
    return match[1].lower() if match else "a folder"


def folders(layout: Layout, config: Settings) -> list[Path]:
    """Where the cache and the remotes lie that are folders; a remote of another kind is no error here."""
    urls = [settings.get("url", "") for name, settings in config.items() if name.startswith("remote ")]
    return [cache(layout, config).root, *(Path(SCHEME.sub("", url)) for url in urls if url and _scheme(url) in FOLDERS)]


def remotes(layout: Layout, config: Settings | None = None) -> list[Store]:
    """Every remote, sorted by name. Raises: ProjectError for a kind that purge cannot clear."""
    config = read_config(layout) if config is None else config
    stores: list[Store] = []
    for name in sorted(section for section in config if section.startswith("remote ")):
        settings = _follow(name, config)
        url = settings.get("url", "")
        scheme = _scheme(url)
        advice = f"clear it yourself, then `dvc remote remove {name.removeprefix('remote ')}`, and retry"
        if "true" in (settings.get("version_aware", "").lower(), settings.get("worktree", "").lower()):
            raise ProjectError(
                f"{name} stores files by path (version_aware or worktree), but purge finds them by digest only: {advice}"
            )
        if scheme == "s3":
            stores.append(BucketStore(name, url, settings))
        elif url and scheme in FOLDERS:
            stores.append(FolderStore(name, Path(SCHEME.sub("", url)), must_exist=True))
        else:
            raise ProjectError(f"{name} is of type {scheme}://, but purge supports only folders and S3: {advice}")
    return stores


def is_own(layout: Layout, store: Store) -> bool:
    """Whether a store is the cache within the project; any other may hold what other projects and clones put there."""
    return store.name == CACHE and isinstance(store, FolderStore) and store.root.resolve().is_relative_to(layout.root.resolve())


def stores(layout: Layout) -> list[Store]:
    """The cache, then every remote."""
    config = read_config(layout)
    return [cache(layout, config), *remotes(layout, config)]


def site_folders(layout: Layout) -> list[Path]:
    """Where DVC remembers what it has seen of this project (states of files, indexes of remotes), outside the cache."""
    import getpass
    import hashlib
    from importlib.metadata import version

    root, mark = layout.root, layout.root / ".dvc" / "tmp" / "btime"
    own = Path(environment_of(layout)["DVC_SITE_CACHE_DIR"])
    named = (os.environ.get("DVC_SITE_CACHE_DIR"), read_config(layout).get("core", {}).get("site_cache_dir"))
    default = "/Library/Caches/dvc" if sys.platform == "darwin" else "/var/tmp/dvc"  # noqa: S108 (DVC's place)
    folders = [own]
    if mark.exists():
        # As DVC 3's Repo.site_cache_dir makes the name; the second field is for subfolders of a git revision.
        facts = (str(root), None, mark.stat().st_mtime, getpass.getuser(), int(version("dvc").split(".")[0]), 0)
        token = hashlib.md5(str(facts).encode(), usedforsecurity=False).hexdigest()
        folders += [Path(base) / "repo" / token for base in dict.fromkeys((*filter(None, named), default)) if Path(base) != own]
    return folders
