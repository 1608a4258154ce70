"""What a scan found, as people, the ledger and certificates get it: the JSON of every release, and no name that is not in git."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from builders import make_params

from flows.purge.places import Workspace, places
from flows.purge.report import LINE, ScanReport, StoreRow, checks, report_of, residue_line
from lmeraser.core.layout import Layout
from lmeraser.prove.scan import Residue, StoreReport
from lmeraser.stores.folder import FolderStore

# As `audit --stores --json` printed it before there was a type for it, sorted keys aside.
WRITTEN = {
    "clean": False,
    "stores": [
        {
            "store": "workspace",
            "objects": 7,
            "bytes": 4096,
            "residue": [
                {"store": "workspace", "kind": "bytes", "count": 2},
                {"store": "workspace", "kind": "unreadable", "count": 1},
            ],
            "where": ["letter.txt"],
            "unreadable": ["closed.bin"],
            "unknown": 0,
        },
        {"store": "cache", "objects": 3, "bytes": 12, "residue": [], "where": [], "unreadable": [], "unknown": 1},
    ],
    "exempt": ["git's own folder", "1 files with long holes"],
}


def test_json_is_what_earlier_releases_printed() -> None:
    report = ScanReport.from_json(WRITTEN)
    assert json.dumps(report.to_json()) == json.dumps(WRITTEN)
    without: list[dict[str, Any]] = [{name: row[name] for name in row if name != "unknown"} for row in WRITTEN["stores"]]  # type: ignore[attr-defined]
    asked = WRITTEN | {"stores": without}  # as the scan's own process prints it
    assert json.dumps(ScanReport.from_json(asked).to_json()) == json.dumps(asked)


def test_words_for_ledger_and_certificate_are_those_of_earlier_releases() -> None:
    report = ScanReport.from_json(WRITTEN)
    assert residue_line(report) == "(workspace: 3), 1 of them files that cannot be read (closed.bin)"
    clean = ScanReport((StoreRow("cache", 3, 12), StoreRow("workspace", 7)), ("x" * 999,))
    assert clean.clean
    assert checks(clean, True, {"remote disk": 2}) == [
        ("a new process found nothing left in 2 stores", "by digest, content and bytes, 10 files"),
        ("not looked into, or does not count", "x" * LINE),
        ("objects that no known version of the pipeline names: accepted, they stay", "remote disk: 2"),
    ]
    assert "what bytes are known by was lost" in checks(clean, False, {})[0][1]


def test_one_row_a_store_and_only_names_that_git_tracks(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    for name in ("tracked.txt", "personal.txt"):
        (tmp_path / name).write_text("x")
    subprocess.run(["git", "-C", str(tmp_path), "add", "tracked.txt"], check=True)
    hits = ("tracked.txt", "personal.txt")
    reports = [
        StoreReport("workspace", 2, 2, (Residue("workspace", "bytes", 2),), hits, hits),
        StoreReport("dvc site", 1, 10, (Residue("dvc site", "bytes", 1),), hits, hits, exempt={"pipes": 1}),
        StoreReport("dvc site", 4, 20, (), links=(str(tmp_path / "elsewhere"), "/elsewhere"), exempt={"pipes": 2}),
    ]
    report = report_of(Layout(tmp_path), [FolderStore("workspace", tmp_path)], reports, ["first"])
    workspace, site = report.stores
    assert (workspace.where, workspace.unreadable) == (("tracked.txt",), ("tracked.txt",))
    assert (site.objects, site.bytes, site.where, site.unreadable) == (5, 30, (), ())
    assert site.residue == (Residue("dvc site", "bytes", 1),)
    assert report.exempt == ("first", "3 pipes", "1 linked files or folders outside the project: links are not followed")
    assert not report.clean


def environment(root: Path, real: bool = True) -> Path:
    """A folder that looks like a virtual environment. Args: real: whether it has a program."""
    for name in ("lib/site.py", "include/x.h", "notes.txt", "pyvenv.cfg", *(["bin/python"] if real else ["bin/tool"])):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    (root / "lib64").symlink_to("lib")
    return root


def test_environments_are_left_out_at_any_depth_and_counted_and_nothing_else_is(tmp_path: Path) -> None:
    environment(tmp_path / "a" / "venv")
    environment(tmp_path / "b", real=False)
    environment(tmp_path / ".dvc" / "x")
    store = Workspace("workspace", tmp_path)
    keys = {key for key, _ in store.list()}
    assert {key for key in keys if key.startswith("a/")} == {"a/venv/notes.txt", "a/venv/pyvenv.cfg", "a/venv/lib64"}
    assert {"b/lib/site.py", "b/bin/tool", ".dvc/x/lib/site.py"} <= keys
    assert store.environments == {f"a/venv/{name}" for name in ("bin", "include", "lib", "lib64")}


def test_the_workspace_is_walked_once_and_environments_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_HOME", "XDG_CONFIG_HOME", "DVC_SITE_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    layout = Layout(tmp_path / "project")
    environment(layout.root / "venv")
    (layout.root / "deep" / "er").mkdir(parents=True)
    listed: list[str] = []
    real = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path).is_relative_to(layout.root):
            listed.append(os.path.relpath(path, layout.root))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    where = places(layout, make_params())
    assert listed == [], "nothing is walked before the scan"
    list(where.workspace.list())
    assert sorted(listed) == [".", "deep", "deep/er", "venv"]
    assert "4 folders of virtual environments (bin, lib, include beside a pyvenv.cfg)" in where.exempt()
