"""What makes a project's artifacts is the project's own code: another clone's is refused before it does anything."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders import ROOT, assert_clean, contents, refused

from flows import cli
from lmeraser.core.code import PACKAGES
from lmeraser.core.errors import ProjectError
from lmeraser.core.own_code import require_own_code

SCRIPT = "from flows.cli import main; main()"  # as the installed command does it: the working folder is on no path
END = "-- end --"
# One after the other in one process: what each of them imports takes a second. A status stands behind what a command said.
EACH = f"""
import sys
from flows.cli import main
for command in sys.argv[1:]:
    try:
        main(command.split())
    except SystemExit as end:
        sys.stderr.write(f"{{end.code}}{END}")
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Another clone of the product, with code of its own."""
    for name in ("params.yaml", "dvc.yaml", "data/erased.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(clone: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Python in a clone, in an environment into which this repository is installed."""
    # PYTHONSAFEPATH: `-c` puts the working folder on the path, and an installed command does not.
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    env.pop("LMERASER_PROJECT", None)
    return subprocess.run([sys.executable, *arguments], cwd=clone, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_commands_of_another_clone_are_refused_and_do_nothing(clone: Path) -> None:
    before = contents(clone)
    commands = ["status", "build", "plan --subject x", "resume", "keys init", "keys show", "predict x.png"]
    done = run(clone, "-c", EACH, *commands)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    blocks = done.stderr.split(END)
    assert blocks.pop() == ""
    for command, block in zip(commands, blocks, strict=True):
        line, _, status = block.rpartition("\n")
        assert status == "2", (command, line)
        assert_clean(line)
        assert "python -m flows.cli" in line, command
    assert contents(clone) == before


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["split", "recipe", "runtime.chain"])
def test_stage_of_another_clone_is_refused_and_does_nothing(clone: Path, stage: str) -> None:
    before = contents(clone)
    done = run(clone, "-m", f"stages.{stage}")
    assert done.returncode == 2, done.stderr
    assert_clean(done.stderr.strip())
    assert contents(clone) == before


def test_help_and_verify_work_in_another_clone(clone: Path) -> None:
    # Whoever checks somebody's certificates does so with code of their own.
    assert run(clone, "-c", SCRIPT, "--help").returncode == 0
    done = run(clone, "-c", SCRIPT, "verify", "missing.json")
    assert "this is the code of another folder" not in done.stderr


@pytest.mark.slow
def test_installed_command_becomes_that_of_the_project_it_is_typed_in(clone: Path) -> None:
    """As `lmeraser` of a wheel is typed in a project that `lmeraser new` made, and below it."""
    marked = clone / "flows" / "cli" / "status.py"
    marked.write_text(marked.read_text().replace('"no request yet"', '"the code of the clone"'))
    (clone / "below").mkdir()
    for folder in (clone, clone / "below"):
        done = run(folder, "-c", SCRIPT, "status")
        assert (done.returncode, done.stdout) == (0, "the code of the clone\n"), done.stderr


def test_code_that_somebody_else_left_is_never_run(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[object] = []
    monkeypatch.chdir(clone)
    monkeypatch.delenv("LMERASER_PROJECT", raising=False)
    monkeypatch.setattr(os, "execve", lambda *call: became.append(call))
    cli._by_own_code(["status"])
    assert len(became) == 1
    monkeypatch.setattr(os, "getuid", lambda: clone.stat().st_uid + 1)
    cli._by_own_code(["status"])
    assert len(became) == 1


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["status", "--help"], ["verify", "x.json"], ["new", "x"], ["manifest", "x"]]
)
def test_what_needs_no_project_runs_where_it_is(clone: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.chdir(clone)
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("it became another"))
    cli._by_own_code(arguments)


def test_command_becomes_another_once(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone)
    monkeypatch.setenv(cli.HANDED_OVER, "1")
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("it became another again"))
    cli._by_own_code(["status"])
    assert cli.HANDED_OVER not in os.environ


@pytest.mark.slow
def test_own_code_runs_from_every_folder_of_the_project(clone: Path) -> None:
    (clone / "below").mkdir()
    for folder in (clone, clone / "below"):
        env = os.environ | {"PYTHONPATH": str(clone), "PYTHONDONTWRITEBYTECODE": ""}  # compiled once for both
        done = subprocess.run([sys.executable, "-c", SCRIPT, "status"], cwd=folder, env=env, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def test_project_without_code_of_its_own_takes_the_installed(tmp_path: Path) -> None:
    require_own_code(tmp_path)


def test_project_reached_by_a_link_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(ROOT)
    require_own_code(tmp_path / "link")


@pytest.mark.parametrize("name", ["lmeraser", "flows"])
def test_one_package_from_elsewhere_is_enough(tmp_path: Path, name: str) -> None:
    __import__(name)
    (tmp_path / name).mkdir()
    assert name in refused(ProjectError, lambda: require_own_code(tmp_path))
