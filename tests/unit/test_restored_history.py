"""What git's history tells after a restore: every list on any branch; and what a shallow clone cannot tell is said."""

import subprocess
from pathlib import Path

import pytest

from flows import git
from flows.purge.git_history import SHALLOW, Repository
from lmeraser.core.layout import Layout

LIST = "data/erased.json"


def in_git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Three versions of the list: the first on main, the second on a branch, the third reset away."""
    folder = tmp_path / "repository"
    (folder / "data").mkdir(parents=True)
    in_git(tmp_path, "init", "--quiet", "--initial-branch", "main", str(folder))

    def commit(text: str) -> None:
        (folder / LIST).write_text(text)
        in_git(folder, "add", "--all")
        in_git(folder, "commit", "--quiet", "--message", text)

    commit("first")
    in_git(folder, "checkout", "--quiet", "-b", "other")
    commit("second")
    in_git(folder, "checkout", "--quiet", "main")
    commit("third")
    in_git(folder, "reset", "--quiet", "--hard", "HEAD~1")
    return folder


def test_lists_of_other_branches_and_of_what_was_reset_away_are_known(repository: Path) -> None:
    assert {data for _, data in git.versions_of(repository, LIST)} == {b"first", b"second", b"third"}


def test_a_shallow_clone_says_that_it_does_not_know_older_lists(repository: Path, tmp_path: Path) -> None:
    """A clone with `--depth` lacks refs that others have: github.com/yesolutions/mirror-action/pull/2."""
    in_git(repository, "merge", "--quiet", "other")
    in_git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{repository}", "shallow")
    assert {data for _, data in git.versions_of(tmp_path / "shallow", LIST)} == {b"second"}
    assert Repository.of(Layout(tmp_path / "shallow")).problem == SHALLOW


def test_where_there_is_no_repository_nothing_is_known(tmp_path: Path) -> None:
    assert git.versions_of(tmp_path, LIST) == []
