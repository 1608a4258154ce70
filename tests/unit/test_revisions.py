"""A review reads commits as they are, needs no artifact and no ledger; what it cannot read is one plain line."""

import contextlib
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import ROOT, assert_clean, raw_params, refused

from flows.cli import main
from flows.report.revisions import History, numbered, state_of
from lmeraser.core.errors import BadInputError, ProjectError
from lmeraser.core.layout import Layout
from lmeraser.report.states import Group

LOCK = "schema: '2.0'\nstages:\n  tune@c00:\n    cmd: x\n    outs:\n    - path: artifacts/tune/c00.safetensors\n      md5: {}\n"
CERTIFICATE = "00001-5eed0000-0000-4000-8000-000000000001.json"


class Repository:
    """A project of metrics and locks alone, in a folder below the repository's."""

    def __init__(self, top: Path) -> None:
        self.top, self.root = top, top / "sub" / "project"
        self.root.mkdir(parents=True)
        (self.root / "params.yaml").write_text(yaml.safe_dump(raw_params()), encoding="utf-8")
        shutil.copyfile(ROOT / "dvc.yaml", self.root / "dvc.yaml")
        self.git("init", "--quiet", "--initial-branch", "main")

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    def git(self, *arguments: str) -> None:
        command = ["git", "-C", str(self.top), "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments]
        subprocess.run(command, check=True, capture_output=True)

    def write(self, served: float, label: float = 1.0, md5: str = "0" * 32) -> None:
        (self.root / "metrics").mkdir(exist_ok=True)
        metrics = {"accuracy": {"served": served}, "log_loss": 0.2, "records": {"train": 72}}
        (self.root / "metrics" / "metrics.json").write_text(json.dumps(metrics))
        (self.root / "metrics" / "classes.csv").write_text(f"label,test_records,accuracy\na,20,{label}\nCANARY-rare,,\n")
        (self.root / "metrics" / "clusters.csv").write_text("slot,records,subjects,test_records,accuracy\nc00,72,14,30.0,1.0\n")
        (self.root / "dvc.lock").write_text(LOCK.format(md5))

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def review(self, *arguments: str) -> tuple[int, str, str]:
        output, complaint = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output), contextlib.redirect_stderr(complaint):
            patch.setenv("LMERASER_PROJECT", str(self.root))
            with pytest.raises(SystemExit) as ended:
                main(["review", *arguments])
        assert "CANARY" not in output.getvalue() + complaint.getvalue()
        return int(str(ended.value)), output.getvalue(), complaint.getvalue()

    def refused(self, *arguments: str) -> str:
        status, output, complaint = self.review(*arguments)
        assert (status, output) == (2, ""), complaint
        assert_clean(complaint.removesuffix("\n"))
        return complaint


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Two commits, the second one worse, and a workspace that is better again."""
    made = Repository(tmp_path / "repository")
    made.commit("nothing was built")
    made.write(0.95)
    made.commit("first")
    made.git("tag", "first")
    made.write(0.90, 0.5, "1" * 32)
    (made.root / "certificates").mkdir()
    (made.root / "certificates" / CERTIFICATE).write_text("{}")
    made.commit("worse")
    made.write(0.97, 1.0, "2" * 32)
    return made


def test_state_of_a_commit_and_of_the_workspace_are_what_lies_there(repository: Repository) -> None:
    history = History(repository.layout)
    first, worse, now = (state_of(history, revision, "it", 5) for revision in ("first", "HEAD", None))
    assert [state.metrics["accuracy.served"] for state in (first, worse, now)] == [0.95, 0.9, 0.97]
    assert [state.outs["artifacts/tune/c00.safetensors"][0] for state in (first, worse, now)] == ["0", "1", "2"]
    assert first.classes == {"a": Group(20, 1.0)}
    assert (first.certificates, now.certificates) == ({}, {1: CERTIFICATE[6:-5]})
    assert (now.name, len(first.name)) == ("workspace", 12)


def test_locks_of_many_slots_are_read_in_a_commit_as_well(repository: Repository) -> None:
    folder = repository.root / "tune" / "00"
    folder.mkdir(parents=True)
    (folder / "dvc.lock").write_text(LOCK.format("7" * 32).replace("c00", "c70"))
    repository.commit("many slots")
    outs = state_of(History(repository.layout), "HEAD", "it", 5).outs
    assert outs["artifacts/tune/c70.safetensors"] == "7" * 32


def test_time_of_a_commit_is_utc_whatever_zone_and_settings_the_reader_has(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2026-01-02T03:04:05+0900")
    repository.commit("far away")
    repository.git("config", "log.showSignature", "true")
    for zone in ("Asia/Kolkata", "America/St_Johns"):
        monkeypatch.setenv("TZ", zone)
        commits = History(repository.layout).commits_of("metrics/metrics.json", 10)
        assert [at for _, at in commits][-1] == "2026-01-01T18:04:05+00:00"
        assert len(commits) == 3
        assert len(History(repository.layout).commits_of("metrics/metrics.json", 2)) == 2


def test_review_ends_with_1_where_a_tolerance_is_broken_and_with_0_where_none_is(repository: Repository) -> None:
    status, output, _ = repository.review("first", "main")
    assert status == 1
    assert "accuracy.served went from 0.95 to 0.9" in " ".join(output.split())
    assert "class a went from 1 to 0.5" in " ".join(output.split())
    assert "1 of 1 clusters: c00; 72 of 72 records" in " ".join(output.split())
    assert repository.review()[0] == 0
    assert repository.review("first")[0] == 0


def test_json_and_markdown_say_the_same(repository: Repository, tmp_path: Path) -> None:
    file = tmp_path / "review.md"
    status, output, _ = repository.review("first", "HEAD", "--json", "--markdown", str(file))
    answer: dict[str, Any] = json.loads(output)
    assert (status, answer["within_tolerances"]) == (1, False)
    assert answer["metrics"]["accuracy.served"] == {"old": 0.95, "new": 0.9, "change": -0.05}
    assert answer["cost"] == {"requests": [CERTIFICATE[6:-5]], "seconds": None}
    assert (answer["classes_not_compared"], answer["blast"]["changed"]) == (1, ["c00"])
    written = file.read_text(encoding="utf-8")
    assert "2 tolerances broken" in written
    assert "CANARY" not in written
    assert repository.review("first", "HEAD", "--markdown", "-")[1].rstrip() == written.rstrip()
    assert not (repository.root / ".lmeraser").exists(), "no ledger is made by asking"


@pytest.mark.parametrize("revision", ["CANARY-branch", "", "HEAD:metrics", "HEAD^{tree}", "a\nb"])
def test_unknown_revision_is_one_line(repository: Repository, revision: str) -> None:
    assert "revision 1 of 2 is no revision" in repository.refused(revision, "HEAD")


def test_revision_that_looks_like_an_option_is_none(repository: Repository) -> None:
    refused(BadInputError, lambda: History(repository.layout).commit("--all", "it"))


def test_revision_without_metrics_with_damaged_ones_and_with_a_damaged_lock_are_one_line(repository: Repository) -> None:
    assert "nothing was evaluated" in repository.refused("first~1")
    (repository.root / "metrics" / "metrics.json").write_text("{")
    assert "workspace: metrics/metrics.json is damaged" in repository.refused()
    repository.commit("damaged")
    assert "metrics/metrics.json is damaged" in repository.refused("HEAD", "first")
    repository.write(0.9)
    (repository.root / "dvc.lock").write_text("CANARY: [")
    repository.commit("damaged lock")
    assert "dvc.lock is damaged" in repository.refused("HEAD", "first")


def test_shallow_clone_is_told_what_it_lacks(repository: Repository, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    repository.git("clone", "--quiet", "--depth", "1", f"file://{repository.top}", str(clone))
    history = History(Layout(clone / "sub" / "project"))
    assert "git fetch --unshallow" in refused(BadInputError, lambda: history.commit("HEAD~1", "revision 1 of 2"))
    assert state_of(history, "HEAD", "it", 5).metrics["accuracy.served"] == 0.9


def test_without_git_and_without_a_repository_it_says_so(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(repository.top / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.top.parent))
    assert "in no git repository" in repository.refused()
    monkeypatch.setenv("PATH", str(repository.top))
    assert "git is missing" in refused(ProjectError, lambda: History(repository.layout).commit("HEAD", "it"))


@pytest.mark.parametrize("wrong", [{"class_drop": "much"}, {"least_wrong": 1.5}, {"accuracy_drop": -1}, {"CANARY_drop": 1}])
def test_tolerance_of_a_wrong_type_is_one_line(repository: Repository, wrong: dict[str, Any]) -> None:
    raw = raw_params()
    raw["review"] |= wrong
    (repository.root / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMERASER_PROJECT", str(repository.root))
        complaint = io.StringIO()
        with contextlib.redirect_stderr(complaint), pytest.raises(SystemExit) as ended:
            main(["review"])
    assert str(ended.value) == "2"
    assert complaint.getvalue().count("\n") == 1
    assert "review." in complaint.getvalue()


def test_file_that_cannot_be_written_and_too_many_revisions_are_one_line(repository: Repository, tmp_path: Path) -> None:
    assert "the folder does not exist" in repository.refused("--markdown", str(tmp_path / "CANARY" / "x.md"))
    assert "names a folder" in repository.refused("--markdown", str(tmp_path))
    assert "at most 2" in repository.refused("a", "b", "c")
    assert "both write to standard output" in repository.refused("--json", "--markdown", "-")


def test_certificate_is_known_by_its_name_and_any_other_file_is_none() -> None:
    assert numbered([f"certificates/{CERTIFICATE}", "certificates/CANARY.json", "HEAD"]) == {1: CERTIFICATE[6:-5]}
