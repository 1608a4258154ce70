"""What the code copies from DVC, against DVC itself: where its config files lie, how they merge, and where it remembers things.

`flows/dvc/config.py` reads the files directly, because a process of DVC costs a second; a new DVC that does it otherwise must
fail here. Otherwise a purge would clear, and a scan read, another folder than DVC writes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.dvc.config import _user_files, cache, read_config, remotes, site_folders
from lmeraser.core.layout import Layout

pytestmark = pytest.mark.slow

ASK = """
import json, sys
from dvc.config import Config
from dvc.repo import Repo
repo = Repo(sys.argv[1])
print(json.dumps({
    "remotes": {name: dict(settings) for name, settings in repo.config["remote"].items()},
    "core": dict(repo.config["core"]),
    "cache": repo.cache.local.path,
    "files": [Config.get_dir(level) for level in ("system", "global")],
    "site": repo.site_cache_dir,
}, default=str))
"""
LEVELS = {
    "system": "['remote \"machine\"']\n    url = relative/machine\n[core]\n    remote = machine\n    site_cache_dir = {site}\n",
    "global": "['remote \"User\"']\n    url = ~/user\n['remote \"disk\"']\n    url = /from/user\n"
    "['remote \"s3\"']\n    url = s3://other/prefix\n    region = kept\n",
    "project": "[core]\n    no_scm = true\n    remote = disk\n['remote \"disk\"']\n    url = ../disk\n"
    "['remote \"s3\"']\n    url = s3://bucket/prefix\n    ENDPOINTURL = http://127.0.0.1:9\n[cache]\n    dir = ../shared-cache\n",
    "local": "['remote \"disk\"']\n    url = nearer\n['remote \"s3\"']\n    endpointurl = http://127.0.0.1:10\n",
}
NAMED = {"url", "region", "endpointurl"}  # by the files above; DVC adds defaults of its own


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A project that DVC accepts, with a config at each of its four levels."""
    root = tmp_path / "project"
    places = {
        "system": tmp_path / "system" / "config",
        "global": tmp_path / "user" / "config",
        "project": root / ".dvc" / "config",
        "local": root / ".dvc" / "config.local",
    }
    for level, path in places.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(LEVELS[level].format(site=tmp_path / "site"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "system"))
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "user"))
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    return Layout(root)


def dvcs_config(layout: Layout) -> dict[str, Any]:
    """What DVC says, in a process of its own."""
    command = [sys.executable, "-c", ASK, str(layout.root)]
    done = subprocess.run(command, env=os.environ | {"DVC_NO_ANALYTICS": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_config_files_merge_as_dvc_merges_them_and_its_folders_are_where_dvc_puts_them(layout: Layout) -> None:
    theirs, ours = dvcs_config(layout), read_config(layout)
    assert {name.removeprefix("remote ") for name in ours if name.startswith("remote ")} == theirs["remotes"].keys()
    for name, settings in theirs["remotes"].items():
        own = ours[f"remote {name}"]
        url = settings["url"]
        assert own["url"] == (url if "://" in url else os.path.normpath(layout.root / ".dvc" / url)), name
        assert own.items() - {("url", own["url"])} <= settings.items(), name
        assert own.keys() == settings.keys() & NAMED, name
    assert ours["core"]["remote"] == theirs["core"]["remote"] == "disk"
    assert str(cache(layout).root / "files" / "md5") == theirs["cache"]
    assert sorted(store.name for store in remotes(layout)) == sorted(f"remote {name}" for name in theirs["remotes"])
    assert theirs["site"] in {str(folder) for folder in site_folders(layout)}


@pytest.mark.parametrize("home", ["XDG", "plain"])
def test_user_s_and_machine_s_files_are_looked_for_where_dvc_does(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    for name in ("DVC_SYSTEM_CONFIG_DIR", "DVC_GLOBAL_CONFIG_DIR", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if home == "XDG":
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
        monkeypatch.setenv("XDG_CONFIG_DIRS", f"{tmp_path / 'all'}{os.pathsep}{tmp_path / 'other'}")
    assert [str(path.parent) for path in _user_files()] == dvcs_config(layout)["files"]
