"""A git history that cannot be read, or only in part, is no empty one: nothing is purged by it."""

import subprocess
from pathlib import Path

import pytest
from builders import refused

from flows.purge import git_history
from flows.purge import step as purge
from flows.purge.lock_history import versions
from lmeraser.core.errors import ProjectError
from unit.yard import BOBS, Yard, make_yard, two_states


def test_a_shallow_clone_with_a_remote_is_refused_before_anything_goes(tmp_path: Path, yard: Yard) -> None:
    _old, new = two_states(yard)
    yard.commit()
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{yard.root}", str(tmp_path / "clone")], check=True)
    clone = Yard(tmp_path / "clone")
    yard.cache.rename(clone.cache)
    before = clone.objects_in(clone.cache)
    for act in (clone.purge, lambda: purge.unknown_in_remotes(clone.layout)):
        message = refused(ProjectError, act)
        assert "git fetch --unshallow" in message
        assert "remote disk" in message
    assert clone.objects_in(clone.cache) == before
    (clone.root / ".dvc" / "config").write_text("")
    assert clone.purge().lineage.problem == git_history.SHALLOW
    assert clone.objects_in(clone.cache) == set(new.values())


@pytest.mark.parametrize("how", ["broken", "file", "dubious", "absent", "blobs"])
def test_a_history_that_cannot_be_read_is_no_empty_one(yard: Yard, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    two_states(yard)
    expected = git_history.BROKEN
    if how == "broken":
        (yard.root / ".git" / "HEAD").unlink()
    elif how == "file":
        (yard.root / ".git").rename(yard.root.parent / "moved")
        (yard.root / ".git").write_text("gitdir: nowhere\n")
    elif how == "dubious":
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        expected = git_history.FOREIGN
    elif how == "absent":
        monkeypatch.setattr(git_history, "_run", lambda *_: (_ for _ in ()).throw(FileNotFoundError("git")))
        expected = git_history.ABSENT
    else:
        printed = subprocess.run(
            ["git", "-C", str(yard.root), "rev-parse", "HEAD:dvc.lock"], capture_output=True, text=True, check=True
        )
        identity = printed.stdout.strip()
        (yard.root / ".git" / "objects" / identity[:2] / identity[2:]).unlink()
        expected = git_history.PARTIAL
    assert versions(yard.layout).problem == expected
    before = yard.objects_in(yard.cache)
    assert expected in refused(ProjectError, yard.purge)
    assert yard.objects_in(yard.cache) == before


def test_a_project_without_git_is_no_problem(tmp_path: Path, yard: Yard) -> None:
    plain = make_yard(tmp_path / "plain", git=False)
    report = plain.store(b"a report")
    plain.lock("extra/dvc.lock", report=({}, {"report.txt": report}))
    new = plain.build(BOBS, model=b"without her")
    assert versions(plain.layout).problem == ""
    plain.purge()
    assert plain.objects_in(plain.cache) == {report, *new.values()}
