"""Building: plain `dvc repro` and the warm build give the same bytes, nothing runs twice, and a change runs what reads it."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from sandbox import CANARY, Sandbox, make_project

from lmeraser.core.layout import Layout
from lmeraser.pipeline.locks import compare, read_outs

pytestmark = pytest.mark.slow


def changed_stages(before: Path, after: Path) -> set[str]:
    """Stages whose entry (command, inputs, params, outs) differs between two locks."""
    old, new = (yaml.safe_load(path.read_text())["stages"] for path in (before, after))
    return {stage for stage in old.keys() | new.keys() if old.get(stage) != new.get(stage)}


def test_one_plain_repro_builds_the_same_bytes_and_a_second_runs_nothing(built: Sandbox, tmp_path: Path) -> None:
    # Another folder, another order of rows, stage by stage, each in a process of its own.
    other = make_project(tmp_path / "other")
    other.manifest.sample(frac=1, random_state=0).to_csv(other.root / "people" / "manifest.csv", index=False)
    done = other.python("-m", "dvc", "repro")
    assert done.returncode == 0, done.stderr
    comparison = compare(read_outs(built.root / "dvc.lock"), read_outs(other.root / "dvc.lock"))
    assert comparison.artifacts > 10
    assert comparison.differing == []
    assert "Running stage" not in other.dvc("repro")


def test_build_leaves_the_lock_and_the_metrics_to_git_and_nothing_else(built: Sandbox) -> None:
    listed = built.python(
        "-c", "import subprocess; print(subprocess.run(['git','status','--porcelain'],capture_output=True,text=True).stdout)"
    )
    assert sorted(line.split()[-1] for line in listed.stdout.splitlines() if line) == ["dvc.lock", "metrics/"]


def test_change_of_a_tune_param_changes_recipe_tune_and_evaluate_alone(project: Sandbox) -> None:
    before = project.root / "before.lock"
    shutil.copyfile(project.root / "dvc.lock", before)
    project.set_params(tune={"epochs": 4})
    project.dvc("repro")
    changed = {stage.split("@")[0] for stage in changed_stages(before, project.root / "dvc.lock")}
    assert changed <= {"recipe", "tune", "evaluate"}
    assert "tune" in changed


@pytest.mark.campaign("half a minute; the params that each stage reads: test_params_read.py")
def test_change_of_the_backbone_reruns_everything_after_the_split(project: Sandbox) -> None:
    before = project.root / "before.lock"
    shutil.copyfile(project.root / "dvc.lock", before)
    project.set_params(pretrain={"epochs": 5})
    assert project.lmeraser("build").returncode == 0
    changed = {stage.split("@")[0] for stage in changed_stages(before, project.root / "dvc.lock")}
    assert changed == {"pretrain", "skeleton", "recipe", "embed", "cluster", "validate", "tune", "head", "evaluate"}


def test_predict_says_what_each_half_contributed(built: Sandbox) -> None:
    images = sorted((built.root / "people" / "images").glob("*.png"))[:3]
    answers = built.json("predict", *map(str, images))["predictions"]
    assert len(answers) == 3
    for answer in answers:
        assert answer["label"] in set("0123456789")
        assert 0 < answer["probability"] <= 1
        assert answer["clusters"]["weight"] + answer["global_head"]["weight"] == pytest.approx(1)
    folder = built.json("predict", "--images", str(images[0].parent))["predictions"]
    assert {answer["image"]: answer["label"] for answer in answers}.items() <= {
        answer["image"]: answer["label"] for answer in folder
    }.items()


def own_files(project: Sandbox) -> set[Path]:
    """All but what the ledger's database, Python and DVC keep for themselves, and what is remembered of DVC's answers."""
    files = {path for path in project.root.rglob("*") if path.is_file() and not path.name.startswith("ledger.db")}
    return {path for path in files if path.suffix != ".pyc" and ".dvc" not in path.parts} - {Layout(project.root).unchanged}


def test_near_copies_are_looked_for_by_the_real_network_and_nothing_but_the_page_stays(built: Sandbox, tmp_path: Path) -> None:
    before = own_files(built)
    person, page = built.people()[0], tmp_path / "near.html"
    done = built.lmeraser("plan", "--subject", person, "--near", str(page), "--json")
    assert done.returncode == 0, done.stderr
    near = json.loads(done.stdout)["near"]
    rows = built.manifest
    assert 0 < near["compared"] <= (rows["subject"] != person).sum()
    assert near["sampled"] > 100
    assert near["found"] < near["compared"] / 2
    assert page.stat().st_mode & 0o777 == 0o600
    shown = done.stdout + done.stderr + page.read_text()
    assert CANARY not in shown
    assert not any(Path(path).name in shown for path in rows["path"])
    assert own_files(built) == before


@pytest.mark.campaign("a minute each; in process: unit/test_updates.py")
@pytest.mark.parametrize("method", ["anchors", "random"])
def test_other_clusterings_build_and_forget_exactly(project: Sandbox, method: str) -> None:
    project.set_params(cluster={"method": method, "k": 3, "anchors": 30})
    project.dvc("repro")
    planned = project.json("plan", "--subject", project.people()[0])
    assert planned["exact"] is (method == "random"), "only a replay can tell what moves with private anchors"
    done = project.json("forget", "--subject", project.people()[0])
    assert done["state"] == "certified"
    assert project.json("audit", "--rebuild")["equal"] is True


def test_nobody_else_on_the_machine_reads_what_a_build_made_of_people(built: Sandbox) -> None:
    images = [path.read_bytes() for path in (built.root / "people" / "images").iterdir()]
    for folder, folders, names in os.walk(built.root):
        # Where others may not go they read nothing; the source itself is its owner's to close.
        folders[:] = [name for name in folders if Path(folder, name).stat().st_mode & 0o011 and name not in ("people", ".git")]
        for file in (Path(folder, name) for name in names):
            data = file.read_bytes() if file.stat().st_mode & 0o044 else b""
            assert not any(image in data for image in images), file.name
    tables = [*(built.root / "artifacts").rglob("*.parquet")]
    assert {table.stat().st_mode & 0o777 for table in tables} == {0o600}
