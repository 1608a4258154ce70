"""A real project whose backup is restored, whole and store by store: nobody who was erased is back after `lmeraser reapply`."""

import json
import shutil
from pathlib import Path

import pytest
from sandbox import CANARY, Sandbox

from lmeraser.data.records import read_records
from lmeraser.pipeline.locks import read_files, read_outs

pytestmark = pytest.mark.slow


def with_remote(project: Sandbox) -> Path:
    remote = project.root.parent / "remote"
    remote.mkdir()
    project.dvc("remote", "add", "--default", "disk", "../remote")
    project.dvc("push", "--quiet", "--run-cache")
    return remote


def subjects(project: Sandbox) -> set[str]:
    parts = (project.root / "artifacts" / "split" / "private").glob("*.parquet")
    return {record.subject for part in parts for record in read_records(part)}


def restore(backup: Path, project: Sandbox, *names: str) -> None:
    for name in names:
        shutil.rmtree(project.root.parent / name)
        shutil.copytree(backup / name, project.root.parent / name, symlinks=True)


@pytest.mark.campaign("in process: unit/test_reapply.py")
def test_whole_backup_and_its_stores_bring_nobody_back(project: Sandbox, tmp_path: Path) -> None:
    with_remote(project)
    first, second, third = project.people()[:3]
    project.json("forget", "--subject", first)  # from here on there are keys, a ledger and a chain to back up
    backup = tmp_path / "backup"
    backup.mkdir()
    for name in ("project", "remote"):
        shutil.copytree(project.root.parent / name, backup / name, symlinks=True)
    erased = project.json("forget", "--subject", second, third)
    outs = read_outs(project.root / "dvc.lock")
    files = read_files(project.root, outs)
    kept = Path(shutil.copytree(project.root / "certificates", tmp_path / "kept"))

    restore(backup, project, "project", "remote")
    assert {second, third} <= subjects(project)
    done = project.lmeraser("reapply", "--certificates", str(kept), "--json")
    assert done.returncode == 0, done.stderr
    assert CANARY not in done.stdout + done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["back_in_records"], outcome["repeats"]) == (2, [erased["request_id"]])
    assert not {first, second, third} & subjects(project)
    assert read_outs(project.root / "dvc.lock") == outs
    assert read_files(project.root, outs) == files, "the very bytes of before the restore"

    restore(backup, project, "remote", "project/.dvc/cache")
    outcome = project.json("reapply", "--certificates", str(kept))
    assert outcome["deleted"]["remote disk"] > 0
    assert outcome["certified"] == []
    certificates = sorted((project.root / "certificates").glob("*.json"))
    assert len(certificates) == 3
    assert project.lmeraser("verify", *map(str, certificates)).returncode == 0
    assert project.json("audit", "--stores")["clean"]


@pytest.mark.campaign("an hour on slow cores: each restore is a whole `reapply`, with its retraining and its scans")
@pytest.mark.timeout(4 * 3600)
def test_fifty_random_restores_bring_nobody_back(project: Sandbox) -> None:
    with_remote(project)
    answer = project.json("drill", "--erase", "10", "--restores", "50")
    assert (answer["came_back"], answer["clean"], answer["equal"]) == (0, True, True)
    assert answer["back_before"] > 0, "no restore brought anybody back, so nothing was tried"
    assert project.json("status")["requests"] == [], "the project itself was only read"
