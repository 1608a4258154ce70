"""One recording puts every stage's entry into its lock at once, and whatever it cannot do is left to `dvc commit`."""

import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import TINY, raw_params
from ruamel.yaml import YAML

from flows import processes
from flows.dvc import command, record
from lmeraser.core.errors import StepFailedError
from lmeraser.core.layout import Layout

ROOT = Path(__file__).resolve().parents[2]


def serialise(data: Any) -> str:
    """As DVC serialises a lock, whose functions for it take long to import."""
    writer, stream = YAML(), io.StringIO()
    writer.default_flow_style = False
    writer.dump(data, stream)
    return stream.getvalue()


def lock_of(**stages: Any) -> str:
    return serialise({"schema": "2.0", "stages": stages})


def stage(digest: str, **params: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"cmd": "python -m x", "outs": [{"path": "a", "hash": "md5", "md5": digest, "size": 3}]}
    return made | ({"params": {"params.yaml": params}} if params else {})


def test_target_is_a_stage_of_the_root_s_file_or_of_another_or_a_whole_file() -> None:
    targets = ["split", "tune/03/dvc.yaml:tune@c100", "tune/00/dvc.yaml"]
    places = [record.place_of(target, "dvc.yaml") for target in targets]
    assert places == [("dvc.yaml", "split"), ("tune/03/dvc.yaml", "tune@c100"), ("tune/00/dvc.yaml", "")]


def test_known_entries_keep_their_place_and_new_ones_follow() -> None:
    before = lock_of(split=stage("1" * 32), cluster=stage("2" * 32), head=stage("3" * 32))
    made = record.with_entries(before, [{"cluster": stage("4" * 32)}, {"evaluate": stage("5" * 32)}], serialise)
    assert made == lock_of(split=stage("1" * 32), cluster=stage("4" * 32), head=stage("3" * 32), evaluate=stage("5" * 32))


@pytest.mark.parametrize("before", ["", "\n"], ids=["absent", "blank"])
def test_first_recording_makes_the_lock(before: str) -> None:
    entry = {"tune@c00": stage("1" * 32, rate=1e-05, names=["a b", "no", "1"], text="word " * 40)}
    assert record.with_entries(before, [entry], serialise) == lock_of(**entry)


def test_value_that_two_stages_share_is_written_out_twice() -> None:
    slots = ["c00", "c01"]
    made = record.with_entries("", [{"a": stage("1" * 32, slots=slots)}, {"b": stage("2" * 32, slots=slots)}], serialise)
    assert "&" not in made
    assert made.count("- c01") == 2


@pytest.mark.parametrize("before", ["# by hand\n" + lock_of(a=stage("1" * 32)), "stages: {a: {cmd: x}}\n", "schema: '2.0'\n"])
def test_lock_that_dvc_did_not_write_is_not_spliced(before: str) -> None:
    with pytest.raises(ValueError, match="as DVC writes it"):
        record.with_entries(before, [{"b": stage("2" * 32)}], serialise)


def test_recording_that_is_interrupted_leaves_the_old_lock_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "dvc.lock"
    before = lock_of(a=stage("1" * 32))
    lock.write_text(before)
    lock.chmod(0o640)

    def full(descriptor: int) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="full"):
            record.write(lock, [{"a": stage("2" * 32)}], serialise)
    assert lock.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["dvc.lock"]
    record.write(lock, [{"a": stage("2" * 32)}], serialise)
    assert lock.read_text() == lock_of(a=stage("2" * 32))
    assert lock.stat().st_mode & 0o777 == 0o640


class Ended:
    """A command that ended with this status."""

    pid = 0

    def __init__(self, status: int) -> None:
        self.status = status

    def wait(self, timeout: float | None = None) -> int:
        return self.status


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw_params(TINY)))
    (tmp_path / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    return Layout(tmp_path)


def commands(monkeypatch: pytest.MonkeyPatch, *statuses: int) -> list[list[str]]:
    """What is started in the place of commands, which end with these statuses one after the other."""
    started: list[list[str]] = []
    left = list(statuses)

    def start(command: Sequence[str], *_: object, **__: object) -> Ended:
        started.append(list(command[2:]))
        return Ended(left.pop(0))

    monkeypatch.setattr(processes, "start", start)
    return started


def test_stages_are_recorded_by_one_command(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    started = commands(monkeypatch, 0)
    command.commit(layout, ["split", "head"])
    assert started == [["flows.dvc.record", "split", "head"]]


def test_what_cannot_be_recorded_at_once_dvc_commits_and_one_line_says_so(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    started = commands(monkeypatch, 1, 0)
    command.commit(layout, ["split", "head"])
    assert started == [["flows.dvc.record", "split", "head"], ["dvc", "commit", "--force", "split", "head"]]
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_failure_of_dvc_commit_is_the_failure(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    commands(monkeypatch, 1, 255)
    with pytest.raises(StepFailedError, match="dvc commit failed"):
        command.commit(layout, ["split"])


def test_killed_recording_is_a_failure_and_starts_nothing(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    started = commands(monkeypatch, -9)
    with pytest.raises(StepFailedError, match="no data was lost"):
        command.commit(layout, ["split"])
    assert len(started) == 1


@pytest.mark.slow
def test_other_version_of_dvc_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    code = "import dvc, sys; dvc.__version__ = '9.9'; sys.argv = ['', 'a']; from flows.dvc import record; sys.exit(record.main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "record: DVC 9.9 is not the version that this was compared with\n"
    assert not list(tmp_path.iterdir())
