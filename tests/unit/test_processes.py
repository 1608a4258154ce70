"""Child processes: what ends with what, what they inherit, and what of their words goes on."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import refused

from flows import git, processes
from flows.project import locked
from lmeraser.core.errors import ProjectError, StepFailedError
from lmeraser.core.layout import Layout

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
patient = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", patient])
print(child.pid, flush=True)
time.sleep(60)
"""


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_what_a_command_started_ends_with_it_even_if_both_ignore_the_signal(tmp_path: Path) -> None:
    process = processes.start([sys.executable, "-c", STUBBORN], Layout(tmp_path), stdout=subprocess.PIPE)
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    assert runs(grandchild)
    processes.stop([process], patience=0.2)
    deadline = time.monotonic() + 10
    while runs(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(grandchild)
    assert process.returncode


def test_orphan_keeps_the_lock_that_it_inherited(tmp_path: Path) -> None:
    path = tmp_path / "state" / "some.lock"
    with locked(path, "waiting"):
        orphan = processes.start([sys.executable, "-c", "import time; time.sleep(60)"], Layout(tmp_path))
    try:
        with path.open("w") as handle, pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        processes.stop([orphan], patience=0.2)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_processes_succeed_only_if_all_of_them_do(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    good, bad = [[sys.executable, "-c", f"raise SystemExit({code})"] for code in (0, 3)]
    assert processes.statuses([processes.start(good, layout)]) == [0]
    assert processes.statuses([processes.start(command, layout) for command in (good, bad)]) == [0, 3]


def test_error_line_of_a_stage_is_told_once(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    processes.clear_report(layout)
    assert processes.reported_failure(layout) is None
    report = Path(processes.environment_of(layout)["LMERASER_ERROR_FILE"])
    report.write_text('{"line": "the image is none", "exit_code": 2}', encoding="utf-8")
    failure = processes.reported_failure(layout)
    assert failure is not None
    assert (str(failure), failure.exit_code) == ("the image is none", 2)
    assert processes.reported_failure(layout) is None


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git.init(tmp_path)
    (tmp_path / "code.py").write_text("1\n", encoding="utf-8")
    (tmp_path / ".gitignore").write_text("*.log\n", encoding="utf-8")
    return tmp_path


def test_revision_is_the_commit_and_marked_if_the_code_differs(repository: Path) -> None:
    assert git.revision(repository, ["code.py"]) == "none (no commit)"
    git.commit_all(repository, "Somebody", "somebody@localhost", "First")
    commit = git.revision(repository, ["code.py"])
    assert len(commit) == 40
    (repository / "other.py").write_text("2\n", encoding="utf-8")
    assert git.revision(repository, ["code.py"]) == commit
    (repository / "code.py").write_text("3\n", encoding="utf-8")
    assert git.revision(repository, ["code.py"]) == f"{commit}+changed"
    git.restore(repository, "code.py")
    assert git.revision(repository, ["code.py"]) == commit


def test_listings_tell_what_is_tracked_and_what_would_be(repository: Path) -> None:
    git.commit_all(repository, "Somebody", "somebody@localhost", "First")
    odd = os.fsdecode(b"o\xffdd \n.txt")
    (repository / odd).touch()
    (repository / "ignored.log").touch()
    assert git.tracked(repository) == {"code.py", ".gitignore"}
    assert set(git.would_keep(repository)) == {"code.py", ".gitignore", odd}


def test_folder_without_git_is_refused_or_tracks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git.tracked(tmp_path) == frozenset()
    refused(ProjectError, lambda: git.would_keep(tmp_path))


def test_words_of_git_are_not_passed_on(repository: Path) -> None:
    message = refused(StepFailedError, lambda: git.change(repository, "checkout", "--", "CANARY"))
    assert message == "`git checkout` failed with exit status 1; fix the repository and retry"
