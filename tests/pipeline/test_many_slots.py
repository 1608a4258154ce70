"""More slots than one pipeline file holds: building, erasing, purging and proving work as with few."""

import json
import shutil
import subprocess
from pathlib import Path

import preloading
import pytest
from sandbox import Sandbox, make_project, refused
from sharing import shared

from lmeraser.pipeline.files import locks
from lmeraser.pipeline.locks import compare, outs_by_stage, read_outs

pytestmark = pytest.mark.slow

# In the project's own copy of the code files hold fewer slots, so six take the paths of sixty-six; `make campaign` takes those.
SLOTS, IN_ROOT, A_FILE = (66, 64, 32) if preloading.cold() else (6, 4, 2)
LAST, NEXT = f"c{SLOTS - 1:02d}", f"c{SLOTS:02d}"


def write_away(project: Sandbox) -> None:
    git = ["git", "-C", str(project.root), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "state"], check=True)


def hold_fewer(project: Sandbox) -> None:
    """Let pipeline files hold fewer slots: constants of the code, which is the project's own."""
    for name, old, new in (
        ("lmeraser/core/params.py", "IN_ROOT = 64", f"IN_ROOT = {IN_ROOT}"),
        ("lmeraser/pipeline/files.py", "SLOTS_A_FILE = 32", f"SLOTS_A_FILE = {A_FILE}"),
    ):
        text = (project.root / name).read_text()
        assert text.count(old) == 1, name
        (project.root / name).write_text(text.replace(old, new))


def folder_of(slot: str) -> str:
    """The folder of the pipeline file that holds a slot."""
    return f"tune/{int(slot[1:]) // A_FILE:02d}"


def grown(root: Path) -> Sandbox:
    """An unbuilt project of many slots."""
    sandbox = make_project(root)
    hold_fewer(sandbox)
    written = sandbox.json("slots", str(SLOTS))
    assert written["files"] == ["dvc.yaml", "tune/00/dvc.yaml", "tune/01/dvc.yaml", "tune/02/dvc.yaml"]
    sandbox.set_params(tune={"epochs": 1}, cluster={"n_max": 15}, skeleton={"leaves": min(SLOTS, 12)})
    write_away(sandbox)
    return sandbox


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """A built and committed project of many slots; never change it."""
    return Sandbox(shared(tmp_path_factory, "many", build_many, Path(__file__)) / "project")


def build_many(folder: Path) -> None:
    sandbox = grown(folder / "project")
    done = sandbox.lmeraser("build")
    assert done.returncode == 0, done.stderr
    assert len(locks(sandbox.root)) == 4
    assert all(path.exists() for path in locks(sandbox.root))
    write_away(sandbox)


@pytest.fixture
def project(many: Sandbox, tmp_path: Path) -> Sandbox:
    shutil.copytree(many.root, tmp_path / "project", symlinks=True)
    return Sandbox(tmp_path / "project")


def test_plain_repro_builds_every_file_with_the_same_bytes_and_a_second_runs_nothing(many: Sandbox, tmp_path: Path) -> None:
    other = grown(tmp_path / "other")
    other.dvc("repro")
    comparison = compare(read_outs(many.root / "dvc.lock"), read_outs(other.root / "dvc.lock"))
    assert comparison.artifacts > SLOTS
    assert comparison.differing == []
    assert "Running stage" not in other.dvc("repro")


def test_person_is_forgotten_purged_and_proven_gone(project: Sandbox) -> None:
    person = project.people()[0]
    before = outs_by_stage(project.root / "dvc.lock")
    plan = project.json("plan", "--subject", person)
    summary = project.json("forget", "--subject", person)
    assert (summary["state"], summary["clusters_retrained"]) == ("certified", plan["clusters_retrained"])
    after = outs_by_stage(project.root / "dvc.lock")
    changed = {name for name in after if after[name] != before[name]}
    expected = {"split", "cluster", "validate", "head", "evaluate", *(f"embed@{part}" for part in plan["parts"])}
    slots = {f"tune@{slot}" for slot in (*plan["slots_retrained"], *plan["slots_emptied"])}
    assert slots <= changed <= expected | slots
    old = {md5 for name in slots for md5 in before[name].values()} - {md5 for outs in after.values() for md5 in outs.values()}
    assert old, "a retrained slot has new bytes"
    cached = {path.parent.name + path.name for path in (project.root / ".dvc" / "cache").rglob("*") if path.is_file()}
    assert not old & cached, "the old prompt is in no cache"
    assert {md5 for name in after if name.startswith("tune@") for md5 in after[name].values()} <= cached
    project.json("verify", summary["certificate"])
    assert project.dvc("status").strip().endswith("up to date.")
    audit = project.json("audit", "--rebuild", "--stores")
    assert (audit["equal"], audit["artifacts"], audit["clean"]) == (True, len(read_outs(project.root / "dvc.lock")), True)


@pytest.mark.campaign("a minute; in process: unit/test_open_requests.py")
def test_kill_that_emptied_one_of_the_locks_is_finished_with_the_same_bytes(project: Sandbox, tmp_path: Path) -> None:
    person = project.people()[1]
    calm = tmp_path / "calm"
    shutil.copytree(project.root, calm, symlinks=True)
    Sandbox(calm).json("forget", "--subject", person)
    slot = project.json("plan", "--subject", person)["slots_retrained"][0]
    beside = f"{folder_of(slot)}/dvc.lock"
    for name in ("dvc.lock", beside):
        work = tmp_path / name.replace("/", "-")
        shutil.copytree(project.root, work, symlinks=True)
        broken = Sandbox(work)
        kill = (  # no file: the scan would find the person's name in it
            "import os, sys\nimport flows.run.build\nfrom flows.cli import main\n"
            f"def update(layout, *a):\n    (layout.root / {name!r}).write_bytes(b'')\n    os.kill(os.getpid(), 9)\n"
            f"flows.run.build.update = update\nmain(['forget', '--subject', {person!r}])\n"
        )
        assert broken.python("-c", kill).returncode == -9
        assert (work / name).read_bytes() == b""
        assert name in refused(broken.lmeraser("audit", "--rebuild"), 2)
        assert broken.json("resume")["finished"][0]["state"] == "certified"
        assert read_outs(work / "dvc.lock") == read_outs(calm / "dvc.lock")
        assert not list((work / ".lmeraser").glob("*.locks"))


@pytest.mark.campaign("in process: unit/test_open_requests.py")
def test_failed_retraining_brings_every_lock_and_file_back(project: Sandbox) -> None:
    person = project.people()[0]
    before = {path: path.read_bytes() for path in locks(project.root)}
    fail = (
        "import sys\nfrom flows.run import build\nfrom flows.cli import main\nfrom lmeraser.core.errors import StepFailedError\n"
        "whole = build._commit\n"
        "def commit(layout, names):\n    whole(layout, names)\n    raise StepFailedError('made to fail; retry')\n"
        f"build._commit = commit\nmain(['forget', '--subject', {person!r}])\n"
    )
    refused(project.python("-c", fail), 1)
    assert {path: path.read_bytes() for path in locks(project.root)} == before
    for path, md5 in read_outs(project.root / "dvc.lock").items():
        assert (project.root / path).exists(), (path, md5)
    assert project.json("resume")["finished"][0]["state"] == "certified"


@pytest.mark.campaign("in process: unit/test_forgetting.py; the same bytes by one build and plain stages: test_build.py")
def test_build_trains_stale_slots_in_warm_processes_with_the_same_bytes(project: Sandbox, tmp_path: Path) -> None:
    other = Sandbox(tmp_path / "other")
    shutil.copytree(project.root, other.root, symlinks=True)
    before = outs_by_stage(project.root / "dvc.lock")
    for sandbox in (project, other):
        sandbox.set_params(tune={"epochs": 2})
    seen = tmp_path / "chains"
    spy = (
        "import os, sys\nfrom flows.run import build\nfrom flows.cli import main\nwhole = build.run_chains\n"
        "def chains(layout, shares, *more, **named):\n"
        f"    open({str(seen)!r}, 'a').write(' '.join(name for share in shares for name in share) + '\\n')\n"
        "    return whole(layout, shares, *more, **named)\n"
        "build.run_chains = chains\nmain(['build'])\n"
    )
    done = project.python("-c", spy)
    assert done.returncode == 0, done.stderr
    assert sorted(seen.read_text().split()) == sorted(name for name in before if name.startswith("tune@"))
    after = outs_by_stage(project.root / "dvc.lock")
    # Stage by stage, the recipe and the slots that hold somebody: what is empty takes a process each, and was built above.
    used = [size["slot"] for size in json.loads((project.root / "artifacts/cluster/clusters.json").read_text())]
    assert len(used) > 3
    other.dvc("repro", "--single-item", "recipe", *(f"{folder_of(slot)}/dvc.yaml:tune@{slot}" for slot in used))
    plain = outs_by_stage(other.root / "dvc.lock")
    for stage in ("recipe", *(f"tune@{slot}" for slot in used)):
        assert after[stage] == plain[stage] != before[stage]
    assert {name.split("@")[0] for name in after if after[name] != before[name]} == {"recipe", "tune", "evaluate"}
    seen.write_text("")
    assert project.python("-c", spy).returncode == 0
    assert seen.read_text() == "", "nothing is stale any more"


def test_plain_repro_refuses_slots_that_no_pipeline_file_holds(project: Sandbox) -> None:
    text = (project.root / "params.yaml").read_text()
    (project.root / "params.yaml").write_text(text.replace(f"c00..{LAST}", f"c00..{NEXT}"))
    done = project.python("-m", "dvc", "repro")
    assert done.returncode != 0
    assert f"`lmeraser slots {SLOTS + 1}`" in done.stderr
    assert f"`lmeraser slots {SLOTS + 1}`" in refused(project.lmeraser("build"), 2)
    project.json("slots", str(SLOTS + 1))
    assert project.lmeraser("build").returncode == 0
    assert f"tune@{NEXT}" in project.lock()
