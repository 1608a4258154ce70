"""The scan is a gate: what it found keeps a request open until it is gone, also after a second try or a kill."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from sandbox import CANARY, Sandbox, refused

pytestmark = pytest.mark.slow

KILLED_AFTER = """
import os, sys
if "flows.cli" in " ".join(sys.orig_argv):
    import flows.purge as purge
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
    [told] = [one for one in json.loads(audit.stdout)["stores"] if one["residue"]]
    assert (told["store"], told["where"]) == ("workspace", []), "only names that git has are told"
    assert [one["state"] for one in project.json("status")["requests"]] == ["verified"]
    assert certificates(project) == []
    (project.root / "untracked.txt").unlink()
    assert project.json("resume")["finished"][0]["state"] == "certified"
    assert "by digest, content and bytes" in checks(project)
    nothing_kept(project)


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
