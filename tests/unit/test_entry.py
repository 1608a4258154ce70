"""Stages and commands end with one line and the promised exit status; the line goes where a flow asked for it."""

import errno
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from builders import ROOT, assert_clean

from flows.cli import main
from lmeraser.core import errors
from lmeraser.core.errors import REPORT_VARIABLE, LmeraserError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from stages.runtime.chain import load
from stages.runtime.entry import enter
from stages.runtime.warm import STAGES


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An unbuilt project; the working folder is in it."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["stage", "c00", "c01"])
    return tmp_path


def failing(error: Exception) -> Callable[[Layout, Params, list[str]], None]:
    def stage(layout: Layout, params: Params, names: list[str]) -> None:
        raise error

    return stage


def status_of(act: Callable[[], object]) -> int:
    with pytest.raises(SystemExit) as end:
        act()
    assert isinstance(end.value.code, int)
    return end.value.code


def all_errors(kind: type[LmeraserError] = LmeraserError) -> list[type[LmeraserError]]:
    return [kind, *(descendant for below in kind.__subclasses__() for descendant in all_errors(below))]


def test_stage_gets_the_project_the_params_and_its_arguments(project: Path) -> None:
    seen: list[object] = []
    enter(lambda layout, params, names: seen.extend((layout.root, params.seed, names)))
    assert seen == [project, 0, ["c00", "c01"]]


@pytest.mark.parametrize("kind", all_errors())
def test_refusal_of_a_stage_is_one_line_and_its_exit_status(
    project: Path, capsys: pytest.CaptureFixture[str], kind: type[LmeraserError]
) -> None:
    assert status_of(lambda: enter(failing(kind("what to do next")))) == kind.exit_code
    assert capsys.readouterr().err == "error: what to do next\n"


def test_refusal_goes_to_the_file_that_a_flow_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REPORT_VARIABLE, str(project / "error.json"))
    assert status_of(lambda: enter(failing(errors.BlockedError("a line")))) == 3
    assert json.loads((project / "error.json").read_bytes()) == {"line": "a line", "exit_code": 3}
    assert (project / "error.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_is_told_in_one_line(project: Path, capsys: pytest.CaptureFixture[str], number: int) -> None:
    assert status_of(lambda: enter(failing(OSError(number, "CANARY", "CANARY-path")))) == 1
    line = capsys.readouterr().err.removesuffix("\n")
    assert "disk is full" in line
    assert os.strerror(number) in line
    assert "free some space" in line
    assert_clean(line)


def test_other_errors_of_the_system_are_not_hidden(project: Path) -> None:
    with pytest.raises(PermissionError):
        enter(failing(PermissionError(errno.EACCES, "denied")))


def test_broken_params_end_a_stage_with_status_2(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "params.yaml").write_text("seed: [")
    assert status_of(lambda: enter(failing(AssertionError()))) == 2
    assert_clean(capsys.readouterr().err.removesuffix("\n"))


def test_tree_of_errors_in_the_docstring_is_the_tree_of_the_code() -> None:
    drawn = dict(re.findall(r"^\s+[│├└─ ]*(\w+Error)\s+(\d)", errors.__doc__ or "", re.MULTILINE))
    exit_codes = {kind.__name__: str(kind.exit_code) for kind in all_errors()}
    assert drawn.items() <= exit_codes.items()
    assert len(drawn) >= 3
    assert all(name in (errors.__doc__ or "") for name in exit_codes)
    assert {kind.exit_code for kind in all_errors()} == {1, 2, 3}


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["audit"], ["plan", "--nonsense"], ["plan"], ["forget"], ["predict"], ["status", "no-uuid"]],
    ids=" ".join,
)
def test_bad_command_line_is_one_line_and_status_2(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert status_of(lambda: main(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert_clean(captured.err.removesuffix("\n"))


def test_reader_that_has_read_enough_ends_nothing_with_a_traceback(project: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -m flows.cli status; echo $? >&2"],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=_closed_pipe(),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.stderr == "0\n"


def _closed_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def test_command_outside_a_project_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status_of(lambda: main(["status"])) == 2
    assert "no project here" in capsys.readouterr().err


def test_status_of_a_new_project_is_empty_and_json_is_one_object(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(lambda: main(["status", "--json"])) == 0
    assert json.loads(capsys.readouterr().out) == {"requests": [], "late": 0}


@pytest.mark.parametrize("arguments", [["plan", "CANARY-anna"], ["CANARY-anna"], ["status", "a", "CANARY\nanna"]], ids=repr)
def test_subject_in_the_wrong_place_is_not_repeated(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert status_of(lambda: main(arguments)) == 2
    assert_clean(capsys.readouterr().err.removesuffix("\n"))


def test_every_stage_that_is_run_by_name_is_found_by_that_name() -> None:
    listed = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage in {*listed, *STAGES}:
        assert callable(load(stage)), stage
        assert Path(str(inspect.getsourcefile(load(stage)))).is_relative_to(ROOT), stage


def test_every_stage_that_a_flow_names_is_one_that_a_chain_can_run() -> None:
    """Found by the slow tests alone: a stage was renamed, and who asks for it by its name in a string was not."""
    texts = [path.read_text() for path in (ROOT / "flows").rglob("*.py")]
    patterns = (r'"(\w+)@\{', r'StageName\("(\w+)"', r'stage_names\("(\w+)"')
    names = {name for text in texts for pattern in patterns for name in re.findall(pattern, text)}
    assert {"embed", "tune", "interim_head"} <= names
    for name in sorted(names):
        assert Path(str(inspect.getsourcefile(load(name)))) == ROOT / "stages" / f"{name}.py"
