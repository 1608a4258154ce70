"""What fails leaves the previous state whole, and a rerun finishes the job: a full disk, a broken stage. Kills: tests/chaos."""

import os
import subprocess
from pathlib import Path

import pytest
from sandbox import Sandbox, refused

from lmeraser.pipeline.locks import read_outs

pytestmark = pytest.mark.slow


def outs_on_disk(project: Sandbox) -> bool:
    """Whether every out is there as dvc.lock says."""
    return "changed outs" not in project.dvc("status") and "deleted" not in project.dvc("status")


@pytest.mark.campaign("in process: unit/test_open_requests.py")
def test_stage_that_fails_leaves_the_last_model_whole_and_resume_finishes(project: Sandbox) -> None:
    person = project.people()[1]
    before = read_outs(project.root / "dvc.lock")
    stage = project.root / "stages" / "evaluate.py"
    # Fails late: split, embed, cluster and tune have written by then.
    failing = {"MPLBACKEND": "agg", "PYTHONPATH": os.pathsep.join([str(project.root / "trap"), str(project.root)])}
    (project.root / "trap").mkdir()
    (project.root / "trap" / "sitecustomize.py").write_text(
        "import sys\nif sys.argv and 'chain' in ' '.join(sys.orig_argv):\n"
        "    import lmeraser.core.errors as e, lmeraser.clusters.global_head as r\n"
        "    def solve(*a): raise e.CheckFailedError('the trap')\n    r.solve = solve\n"
    )
    done = project.lmeraser("forget", "--subject", person, env=failing)
    line = refused(done, 1)
    assert "stays open at removed" in line
    assert "the trap" in line
    assert stage.exists()
    assert read_outs(project.root / "dvc.lock") == before
    assert outs_on_disk(project)
    finished = project.json("resume")["finished"]
    assert [request["state"] for request in finished] == ["certified"]
    assert project.json("audit", "--rebuild")["equal"] is True


@pytest.mark.campaign("half a minute; a disk that is full, below, takes the same way")
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a folder read-only needs root")
def test_cache_that_is_read_only_keeps_the_request_open_and_says_why(project: Sandbox) -> None:
    """Found by hand: DVC was told to be quiet, and the line said that its output says why."""
    before = read_outs(project.root / "dvc.lock")
    cache = str(project.root / ".dvc" / "cache")
    mounted = subprocess.run(["mount", "--bind", cache, cache], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a folder")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", cache], check=True)
        line = refused(project.lmeraser("forget", "--subject", project.people()[0]), 1)
        assert "open at removed: dvc commit failed because DVC's cache cannot be written (Read-only file system)" in line
        assert line.removeprefix("error: ").split(": ", 1)[1].startswith(project.json("status")["requests"][0]["problem"])
        assert read_outs(project.root / "dvc.lock") == before
        assert not list((project.root / "certificates").glob("*.json"))
    finally:
        subprocess.run(["umount", cache], check=True)
    assert "artifacts/" not in project.dvc("status"), "the last model is back; metrics lie in git, not in the cache"
    assert project.json("resume")["finished"][0]["state"] == "certified"
    assert project.dvc("status").strip().endswith("up to date.")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_full_disk_leaves_the_last_model_whole_and_a_rerun_finishes(project: Sandbox, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        subprocess.run(["cp", "-a", str(project.root), str(disk / "project")], check=True)
        small = Sandbox(disk / "project")
        before = read_outs(small.root / "dvc.lock")
        small.json("submit", "--subject", small.people()[0])
        small.python("-m", "compileall", "-q", "flows", "lmeraser", "stages")  # CPython 3.11 leaves half a .pyc on a full disk
        free = os.statvfs(disk)
        (disk / "ballast").write_bytes(b"\0" * (free.f_bavail * free.f_bsize - 40_000))
        line = refused(small.lmeraser("resume"), 1)
        assert "disk is full" in line
        assert read_outs(small.root / "dvc.lock") == before
        (disk / "ballast").unlink()
        assert outs_on_disk(small)
        assert small.json("resume")["finished"][0]["state"] == "certified"
        assert small.json("audit", "--rebuild")["equal"] is True
    finally:
        subprocess.run(["umount", str(disk)], check=False)
