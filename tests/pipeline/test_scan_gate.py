"""The scan sees every kind of leftover, and is a gate: what it found keeps a request open until it is gone."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from sandbox import CANARY, Sandbox, files, refused
from scene import Scene, victim

from flows.purge import step as purge

pytestmark = pytest.mark.slow

KILLED_AFTER = """
import os, sys
if "flows.cli" in " ".join(sys.orig_argv):
    import flows.purge.step as purge
    def killed(layout, journal):
        os.kill(os.getpid(), 9)
    purge.carry_out = killed
"""


def certificates(project: Sandbox) -> list[Path]:
    return sorted((project.root / "certificates").glob("*.json"))


def checks(project: Sandbox) -> str:
    """What the only certificate says that was checked."""
    [path] = certificates(project)
    payload = base64.b64decode(json.loads(path.read_bytes())["payload"])
    return json.dumps(json.loads(payload)["predicate"]["checks"])


def nothing_kept(project: Sandbox) -> None:
    """No name, in clear, is left in what this machine keeps of a request."""
    assert not list((project.root / ".lmeraser").glob("*.needles*"))
    for path in (project.root / ".lmeraser").rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path.name


@pytest.mark.campaign("in process: unit/test_open_requests.py")
def test_traces_that_were_found_keep_a_request_open_however_often_it_is_tried(project: Sandbox) -> None:
    """Found by following README.md: the second try no longer knew the name, found nothing and certified."""
    person = project.people()[3]
    letter = project.root / "letter.txt"
    letter.write_text(f"Dear {person}, we will erase you.")
    subprocess.run(["git", "-C", str(project.root), "add", "letter.txt"], check=True)
    assert "traces are left after the purge (workspace: 1)" in refused(project.lmeraser("forget", "--subject", person), 1)
    for _ in range(2):
        assert "traces are left after the purge (workspace: 1)" in refused(project.lmeraser("resume"), 1)
    audit = project.lmeraser("audit", "--stores")
    assert audit.returncode == 1
    assert "1 bytes, in letter.txt" in audit.stdout
    letter.rename(project.root / "untracked.txt")
    audit = project.lmeraser("audit", "--stores", "--json")
    [row] = [row for row in json.loads(audit.stdout)["stores"] if row["residue"]]
    assert (row["store"], row["where"]) == ("workspace", []), "only names that git has are told"
    assert [request["state"] for request in project.json("status")["requests"]] == ["verified"]
    assert certificates(project) == []
    (project.root / "untracked.txt").unlink()
    assert project.json("resume")["finished"][0]["state"] == "certified"
    assert "by digest, content and bytes" in checks(project)
    nothing_kept(project)


@pytest.mark.campaign("in process: unit/test_open_requests.py and unit/test_purge_kinds.py")
def test_unknown_models_in_a_remote_and_a_shallow_history_stop_an_erasure_until_somebody_decides(project: Sandbox) -> None:
    """A colleague's clone pushed a model of everybody: it was left in a remote that the certificate listed with no residue."""
    disk, person = project.root.parent / "disk", project.people()[3]
    disk.mkdir()
    git = ["git", "-C", str(project.root), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    project.dvc("remote", "add", "--default", "disk", str(disk))
    subprocess.run([*git, "add", "dvc.lock", "metrics", ".dvc"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "built"], check=True)
    project.dvc("push", "--quiet")
    theirs = disk / "files" / "md5" / "ab" / ("0" * 30)
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_bytes(b"a model of everybody")
    before = files(disk), files(project.root / ".dvc" / "cache")
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    (project.root / ".git" / "shallow").write_text(head)
    assert "git fetch --unshallow" in refused(project.lmeraser("forget", "--subject", person), 2)
    (project.root / ".git" / "shallow").unlink()
    line = refused(project.lmeraser("resume"), 3)
    assert "remote disk: 1" in line
    assert "--accept-unknown" in line
    assert files(disk) == before[0]
    assert before[1].items() <= files(project.root / ".dvc" / "cache").items(), "nothing was deleted"
    assert certificates(project) == []
    assert project.json("resume", "--accept-unknown")["finished"][0]["state"] == "certified"
    assert "remote disk: 1" in checks(project)
    assert theirs.exists()
    unknown = {row["store"]: row["unknown"] for row in project.json("audit", "--stores")["stores"]}
    assert unknown["remote disk"] == 1
    assert unknown["cache"] == 0


@pytest.mark.campaign("in process: unit/test_purge_crash.py")
def test_scan_after_a_killed_purge_looks_for_all_that_the_first_one_would_have(project: Sandbox) -> None:
    person = project.people()[3]
    trap = project.root / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text(KILLED_AFTER)
    path = os.pathsep.join((str(trap), str(project.root)))
    project.json("submit", "--subject", person)
    assert project.lmeraser("resume", env={"PYTHONPATH": path}).returncode == -9
    shutil.rmtree(trap)
    [kept] = (project.root / ".lmeraser").glob("*.needles")
    assert kept.stat().st_mode & 0o777 == 0o600
    (project.root / "letter.txt").write_text(f"Dear {person}, we will erase you.")
    assert "workspace: 1" in refused(project.lmeraser("resume"), 1)
    (project.root / "letter.txt").unlink()
    assert project.json("resume")["finished"][0]["state"] == "certified"
    assert "by digest, content and bytes" in checks(project)
    nothing_kept(project)


def test_leftovers_of_every_kind_and_place_are_found(scene: Scene) -> None:
    """A first version said "0 left" while 7 were left: what is planted after the purge must be seen, each alone."""
    cache, disk = files(scene.cache), files(scene.disk)
    _, search_terms = scene.purge()
    lost = sorted(name for name in cache if name not in files(scene.cache))
    entry = next(name for name in lost if name.startswith("runs/"))
    folder = next(name for name in lost if name.endswith(".dir"))
    part = next(name for name in lost if any(image in cache[name] for image in search_terms.images))
    sealed = [name for name in lost if name.startswith("files") and not name.endswith(".dir")]
    derived = next(name for name in sealed if not cache[name].startswith(b"PAR1"))
    tmp, prefect = Path(tempfile.gettempdir()), Path(os.environ["PREFECT_HOME"])
    leftovers_of = {
        "cache": [(scene.cache / name, cache[name]) for name in (entry, folder, part, derived)]
        + [(scene.cache / "files" / "md5" / "aa" / "x.tmp", cache[part][:-9])],
        "remote disk": [(scene.disk / name, disk[name]) for name in (entry, folder, part, derived) if name in disk],
        "workspace": [
            (scene.layout.artifacts / "tune" / "old.safetensors", cache[derived]),
            (scene.root / "notes.txt", f"we erased {victim(scene)}.".encode()),
            (scene.root / "copy.parquet", cache[part]),
            (scene.root / ".dvc" / "tmp" / "exps" / "x", cache[part]),
        ],
        "ledger, keys and logs": [(scene.layout.private_state / "log.txt", next(iter(search_terms.ids)).encode())],
        "dvc site": [(scene.root / ".dvc" / "tmp" / "site" / "x", next(iter(search_terms.images)))],
        "prefect": [(prefect / "prefect.db-wal", b"\0" + victim(scene).encode() + b"\0")],
        "temporary files": [(tmp / "lmeraser-audit-x" / "part.parquet", cache[part])],
    }
    (tmp / "lmeraser-audit-x").mkdir()
    os.utime(tmp / "lmeraser-audit-x", (0, 0))
    assert scene.residue(search_terms) == {}
    for store, planted in leftovers_of.items():
        assert planted, store
        for path, content in planted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            if store == "temporary files":
                os.utime(path.parent, (0, 0))
            assert set(scene.residue(search_terms)) == {store}, (store, path.name)
            path.unlink()
    assert scene.residue(search_terms) == {}
    (scene.root / "export.csv").write_text("a canary of the user's own\n")
    report = purge.audit_stores(scene.layout, ["a canary of the user's own"])
    assert {row.store for row in report.stores if row.residue} == {"workspace"}


def test_the_scan_gets_no_needle_as_an_argument(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    real = subprocess.run

    def watch(command: list[str], **given: Any) -> Any:
        seen.append(command)
        return real(command, **given)

    _, search_terms = scene.plan()
    monkeypatch.setattr(subprocess, "run", watch)
    purge.scan_stores(scene.layout, search_terms)
    assert [command[1:] for command in seen if "flows.purge.scan" in command] == [["-m", "flows.purge.scan", str(scene.root)]]
