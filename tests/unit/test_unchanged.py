"""DVC is asked about those stages alone of which something changed since it found them up to date; in doubt about everything."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_pipeline import ADDRESSES, BESIDE, ROOT, make, object_path, record, swap, write

from flows.dvc import command, unchanged
from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.pipeline.locks import md5_of_file

WHOLE: tuple[str, ...] = ()


class FakeAnswers:
    """What DVC says. Attributes: asked: the targets of each question; stale: by address."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.stale: dict[str, Any] = {}
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self, _: Layout, *targets: str, module: str = "dvc") -> tuple[int, str, str]:
        assert module == command.STATUS
        self.asked.append(targets)
        self.meanwhile()
        told = {address: reasons for address, reasons in self.stale.items() if not targets or address in targets}
        return 0, json.dumps(told), ""


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    for name in ("DVC_SYSTEM_CONFIG_DIR", "DVC_GLOBAL_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "config" / name))
    root = tmp_path / "project"
    root.mkdir()
    layout = make(root)
    record(root)
    return layout


@pytest.fixture
def dvc(monkeypatch: pytest.MonkeyPatch) -> FakeAnswers:
    answers = FakeAnswers()
    monkeypatch.setattr(command, "ask", answers)
    return answers


def test_dvc_is_not_asked_again_when_nothing_changed(layout: Layout, dvc: FakeAnswers) -> None:
    assert command.status_and_unchanged(layout) == ({}, 0)
    assert command.status_and_unchanged(layout) == ({}, 6)
    assert dvc.asked == [WHOLE]


def test_whole_question_asks_about_everything_and_renews_what_is_remembered(layout: Layout, dvc: FakeAnswers) -> None:
    command.status(layout, whole=True)
    assert command.status_and_unchanged(layout, whole=True) == ({}, 0)
    assert dvc.asked == [WHOLE, WHOLE]
    layout.unchanged.unlink()
    command.status(layout, whole=True)
    command.status(layout)
    assert dvc.asked == [WHOLE, WHOLE, WHOLE]


SPLIT, EMBED_A, EMBED_B, SCORE, TUNE_0, TUNE_1 = (
    "split",
    "embed@a",
    "embed@b",
    "score",
    "tune/00/dvc.yaml:tune@c0",
    "tune/00/dvc.yaml:tune@c1",
)


def _edit(name: str) -> Callable[[Path], object]:
    return lambda root: write(root, name, "another content")


def _touch(name: str) -> Callable[[Path], object]:
    return lambda root: os.utime(root / name, ns=(1, 1))


def _forget_object(name: str) -> Callable[[Path], object]:
    return lambda root: object_path(root, md5_of_file(root / name)).unlink()


CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "a file of a folder that is read": (_edit("source/one"), {SPLIT}),
    "one more file there": (_edit("source/deep/three"), {SPLIT}),
    "a file there renamed": (lambda root: (root / "source/one").rename(root / "source/uno"), {SPLIT}),
    "an out that is read": (_edit("artifacts/embed/a"), {EMBED_A, SCORE, TUNE_0, TUNE_1}),
    "a file of an out": (_edit("artifacts/split/b"), {SPLIT, EMBED_B}),
    "time alone": (_touch("artifacts/tune/c1"), {TUNE_1}),
    "inode alone": (lambda root: swap(root / "artifacts/tune/c1", "other"), {TUNE_1}),
    "a file gone": (lambda root: (root / "artifacts/tune/c0").unlink(), {TUNE_0}),
    "an out without a cache": (_edit("score.json"), {SCORE}),
    "an object gone": (_forget_object("artifacts/tune/c0"), {TUNE_0}),
    "an object of a folder's file gone": (_forget_object("artifacts/split/a"), {SPLIT}),
    "an object's mode": (lambda root: object_path(root, md5_of_file(root / "artifacts/tune/c0")).chmod(0o444), {TUNE_0}),
    "one entry of a lock": (
        lambda root: write(root, "tune/00/dvc.lock", (root / "tune/00/dvc.lock").read_text().replace("tune c1", "tune it")),
        {TUNE_1},
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_exactly_the_stages_are_asked_about_of_which_something_changed(name: str, layout: Layout, dvc: FakeAnswers) -> None:
    command.status(layout)
    change, expected = CHANGES[name]
    change(layout.root)
    assert command.status_and_unchanged(layout) == ({}, 6 - len(expected))
    assert [set(targets) for targets in dvc.asked] == [set(), expected]
    command.status(layout)
    assert len(dvc.asked) == 2, "what DVC found up to date is remembered anew"


def test_stale_stage_is_asked_about_until_it_is_not(layout: Layout, dvc: FakeAnswers) -> None:
    dvc.stale = {TUNE_1: ["changed command"]}
    for _ in range(3):
        assert command.status(layout) == {"tune@c1": ["changed command"]}
    dvc.stale = {}
    assert command.status(layout) == {}
    assert command.status(layout) == {}
    assert dvc.asked == [WHOLE, (TUNE_1,), (TUNE_1,), (TUNE_1,)]


def test_what_changes_while_dvc_looks_is_asked_about_next_time(layout: Layout, dvc: FakeAnswers) -> None:
    dvc.meanwhile = lambda: write(layout.root, "artifacts/tune/c1", "while it looks")
    command.status(layout)
    dvc.meanwhile = lambda: None
    command.status(layout)
    assert dvc.asked == [WHOLE, (TUNE_1,)]


FOR_ALL: dict[str, Callable[[Path], object]] = {
    "params": lambda root: write(root, "params.yaml", (root / "params.yaml").read_text() + "\n"),
    "a pipeline file": lambda root: write(root, "tune/00/dvc.yaml", (root / "tune/00/dvc.yaml").read_text() + "\n"),
    "params beside a pipeline file": lambda root: write(root, "tune/00/params.yaml", "a: 1"),
    "DVC's config": lambda root: write(root, ".dvc/config", "[core]\n    analytics = false\n"),
    "DVC's config of this machine": lambda root: write(root.parent, "config/DVC_SYSTEM_CONFIG_DIR/config", "[core]\n"),
    "what DVC is to ignore": lambda root: write(root, "source/.dvcignore", "one"),
}


@pytest.mark.parametrize("name", FOR_ALL)
def test_what_all_stages_share_makes_dvc_asked_about_everything(name: str, layout: Layout, dvc: FakeAnswers) -> None:
    command.status(layout)
    FOR_ALL[name](layout.root)
    command.status(layout)
    command.status(layout)
    assert dvc.asked == [WHOLE, WHOLE]


def _stage(**keys: object) -> Callable[[Path], object]:
    """`split` with other keys."""
    stages = ROOT["stages"] | {"split": ROOT["stages"]["split"] | keys}
    return lambda root: write(root, "dvc.yaml", ROOT | {"stages": stages})


def _in_all_locks(old: str, new: str) -> Callable[[Path], object]:
    return lambda root: write(root, "dvc.lock", (root / "dvc.lock").read_text().replace(old, new))


def _moved_behind_a_link(name: str) -> Callable[[Path], object]:
    def move(root: Path) -> None:
        (root / name).rename(root / "elsewhere")
        (root / name).symlink_to(root / "elsewhere")

    return move


DOUBTS: dict[str, Callable[[Path], object]] = {
    "a stage of somebody else": lambda root: write(root, "data/images.dvc", "outs: []"),
    "a pipeline file elsewhere": lambda root: write(root, "data/dvc.yaml", "stages: {}"),
    "a pipeline file too deep": lambda root: write(root, "tune/00/more/dvc.yaml", "stages: {}"),
    "always stale": _stage(always_changed=True),
    "frozen": _stage(frozen=True),
    "a matrix": _stage(matrix={"a": [1]}),
    "values of its own": _stage(vars=["other.yaml"]),
    "values for all": lambda root: write(root, "dvc.yaml", ROOT | {"vars": ["params.yaml", "other.yaml"]}),
    "another section": lambda root: write(root, "dvc.yaml", ROOT | {"datasets": []}),
    "another folder": _stage(wdir="source"),
    "another place of the slots": lambda root: write(
        root, "tune/00/dvc.yaml", json.loads(json.dumps(BESIDE).replace("../..", ".."))
    ),
    "no deps": _stage(deps=[]),
    "a remote dep": _stage(deps=["https://example.org/source"]),
    "an out that no remote gets": _stage(outs=[{"artifacts/split": {"push": False}}]),
    "a stage that the lock lacks": lambda root: write(
        root, "dvc.yaml", ROOT | {"stages": ROOT["stages"] | {"more": ROOT["stages"]["split"]}}
    ),
    "a stage that the lock alone has": _in_all_locks("  score:", "  scored:"),
    "one name twice": lambda root: (
        write(root, "tune/01/dvc.yaml", (root / "tune/00/dvc.yaml").read_text())
        and write(root, "tune/01/dvc.lock", (root / "tune/00/dvc.lock").read_text())
    ),
    "a lock gone": lambda root: (root / "tune/00/dvc.lock").unlink(),
    "half a lock": lambda root: write(root, "dvc.lock", "stages: [{"),
    "an old lock": _in_all_locks("hash: md5", "hash: md5-dos2unix"),
    "a folder's files in the lock": _in_all_locks("size: 1", "files: []"),
    "a link among what is read": lambda root: (root / "source" / "link").symlink_to(root / "artifacts"),
    "a link in place of a folder": _moved_behind_a_link("artifacts"),
    "a link in place of a file": _moved_behind_a_link("artifacts/tune/c0"),
    "a project in what is read": lambda root: write(root, "source/.dvc/config", ""),
    "no DVC project": lambda root: (root / ".dvc").rename(root / "moved"),
    "a pipe among what is read": lambda root: os.mkfifo(root / "source" / "pipe"),
    "params that are none": lambda root: write(root, "params.yaml", "slots: [c0"),
    "somebody runs a stage": lambda root: write(root, ".dvc/tmp/rwlock", json.dumps({"write": {"a": {"pid": 1}}})),
    "half a record of who runs": lambda root: write(root, ".dvc/tmp/rwlock", "{"),
    "a manifest that is none": lambda root: next((root / ".dvc" / "cache").rglob("*.dir")).write_text("["),
}


@pytest.mark.parametrize("name", DOUBTS)
def test_dvc_is_asked_about_everything_in_doubt(name: str, layout: Layout, dvc: FakeAnswers) -> None:
    command.status(layout)
    DOUBTS[name](layout.root)
    command.status(layout)
    command.status(layout)
    assert dvc.asked == [WHOLE, WHOLE, WHOLE]


def test_another_version_of_dvc_is_asked_about_everything(
    layout: Layout, dvc: FakeAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.status(layout)
    monkeypatch.setattr(unchanged, "version", lambda _: "99.0.0")
    command.status(layout)
    command.status(layout)
    assert dvc.asked == [WHOLE, WHOLE, WHOLE]


def _memory(**keys: object) -> Callable[[Layout], object]:
    return lambda layout: layout.unchanged.write_text(json.dumps(json.loads(layout.unchanged.read_text()) | keys))


@pytest.mark.parametrize(
    "harm",
    [
        lambda layout: layout.unchanged.write_bytes(b""),
        lambda layout: layout.unchanged.write_bytes(b"\xff\xfe{"),
        lambda layout: layout.unchanged.write_text("[" * 100_000),
        lambda layout: layout.unchanged.write_text("[1, 2]"),
        lambda layout: layout.unchanged.unlink(),
        _memory(format=0),
        _memory(common="0" * 64),
        _memory(stages=[]),
        _memory(stages={}),
        _memory(stages={"0" * 64: "0" * 64}),
    ],
)
def test_damaged_or_foreign_memory_is_ignored_and_made_anew(
    harm: Callable[[Layout], object], layout: Layout, dvc: FakeAnswers
) -> None:
    command.status(layout)
    harm(layout)
    assert command.status_and_unchanged(layout) == ({}, 0)
    assert command.status_and_unchanged(layout) == ({}, 6)
    assert dvc.asked == [WHOLE, WHOLE]


def test_memory_is_of_no_other_copy_of_the_project(layout: Layout, dvc: FakeAnswers, tmp_path: Path) -> None:
    command.status(layout)
    other = tmp_path / "copy"
    other.mkdir()
    copy = make(other)
    record(other)
    copy.unchanged.write_bytes(layout.unchanged.read_bytes())
    command.status(copy)
    assert dvc.asked == [WHOLE, WHOLE], "each stage has files of its own"


def test_memory_is_digests_alone_and_for_its_owner(layout: Layout, dvc: FakeAnswers) -> None:
    write(layout.root, "source/CANARY-person.png", "somebody")
    dvc.stale = {SCORE: ["changed command"]}
    command.status(layout)
    kept = json.loads(layout.unchanged.read_text())
    words = [*kept["stages"], *filter(None, kept["stages"].values()), kept["common"]]
    assert len(words) == 6 + 5 + 1
    assert all(len(word) == 64 and set(word) <= set("0123456789abcdef") for word in words)
    assert layout.unchanged.stat().st_mode & 0o777 == 0o600


def test_nothing_is_remembered_of_an_answer_about_other_stages(layout: Layout, dvc: FakeAnswers) -> None:
    command.status(layout)
    dvc.stale = {"others/dvc.yaml:other": ["changed command"]}
    assert command.status(layout, whole=True) == {"other": ["changed command"]}
    assert not layout.unchanged.exists()


def test_project_without_a_state_of_its_own_is_asked_about_each_time(layout: Layout, dvc: FakeAnswers) -> None:
    layout.private_state.rmdir()
    command.status(layout)
    command.status(layout)
    assert dvc.asked == [WHOLE, WHOLE]
    assert not layout.private_state.exists()


def test_dvc_itself_is_asked_about_everything_where_our_way_fails(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def ask(_: Layout, *targets: str, module: str = "dvc") -> tuple[int, str, str]:
        asked.append((module, *targets))
        return (1, "", "") if module == command.STATUS and targets else (0, "{}", "")

    monkeypatch.setattr(command, "ask", ask)
    command.status(layout)
    write(layout.root, "artifacts/tune/c1", "other")
    assert command.status_and_unchanged(layout) == ({}, 0)
    assert asked == [(command.STATUS,), (command.STATUS, TUNE_1), ("dvc", "status", "--json")]


def test_nothing_is_remembered_where_dvc_cannot_tell(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "ask", lambda *_, **__: (1, "", "ERROR"))
    with pytest.raises(ProjectError, match="dvc status"):
        command.status(layout)
    assert not layout.unchanged.exists()


def test_addresses_are_those_that_dvc_has(layout: Layout) -> None:
    now = unchanged.take(layout)
    assert now is not None
    assert set(now.stages) == ADDRESSES
