"""What is answered from memory is what `dvc status` says, whatever happened to the project since."""

import json
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc_data.hashfile.build import IgnoreInCollectedDirError
from hypothesis import given, settings
from hypothesis import strategies as st
from small_pipeline import BESIDE, ROOT, make, swap, write

from flows.dvc import command
from flows.dvc.status import stale_of
from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.pipeline.files import plain_name

pytestmark = pytest.mark.slow


COMPLAINTS = (DvcException, IgnoreInCollectedDirError)  # of DVC, which it ends with as a command


@contextmanager
def opened(root: Path) -> Iterator[Repo]:
    with chdir(root), Repo(str(root)) as repo:
        yield repo


# Each takes the project's folder and a number, and changes something there; what it needs may be gone.
Change = Callable[[Path, int], object]
PATHS = (
    *("source/one", "source/two", "source/.gitignore", "artifacts/split/a", "artifacts/split/b", "artifacts/embed/a"),
    *("artifacts/embed/b", "artifacts/tune/c0", "artifacts/tune/c1", "score.json"),
)


def _path(root: Path, number: int) -> Path:
    return root / PATHS[number % len(PATHS)]


def _there(root: Path, number: int) -> Path:
    """A file that is there."""
    there = [path for name in PATHS if (path := root / name).is_file()]
    return there[number % len(there)] if there else write(root, "source/one", "again")


def _replaced(root: Path, file: str, old: str, new: str) -> None:
    path = root / file
    if path.exists():
        write(root, file, path.read_text().replace(old, new))


def _object(root: Path, number: int) -> Path:
    objects = sorted(path for path in (root / ".dvc" / "cache" / "files").rglob("*") if path.is_file())
    return objects[number % len(objects)] if objects else write(root, ".dvc/cache/files/md5/00/00", "")


def _harm_object(root: Path, number: int) -> None:
    path = _object(root, number)
    path.chmod(0o644)  # DVC believes those that cannot be written
    path.write_text("[]")


def _checkout(root: Path, _: int) -> None:
    with opened(root) as repo, suppress(*COMPLAINTS):  # where the cache lacks something
        repo.checkout(force=True)


def _commit(root: Path, _: int) -> None:
    with opened(root) as repo, suppress(*COMPLAINTS):  # where an out is gone
        repo.commit(force=True)


IGNORE = (".dvcignore", "source/.dvcignore")
CHANGES: dict[str, Change] = {
    "nothing": lambda *_: None,
    "edit": lambda root, number: write(root, PATHS[number % len(PATHS)], f"edited {number}"),
    "put back": lambda root, number: write(root, PATHS[number % len(PATHS)], f"content of {PATHS[number % len(PATHS)]}"),
    "touch": lambda root, number: os.utime(_there(root, number), ns=(number, number)),
    "delete": lambda root, number: _path(root, number).unlink(missing_ok=True),
    "swap, with its time": lambda root, number: swap(_there(root, number), f"swapped {number}"),
    "swap for the same, with its time": lambda root, number: swap(_there(root, number), _there(root, number).read_text()),
    "one more file": lambda root, number: write(root, f"{('source', 'artifacts/split')[number % 2]}/new/{number}", "more"),
    "a folder gone": lambda root, number: shutil.rmtree(root / ("source", "artifacts")[number % 2], ignore_errors=True),
    "an object gone": lambda root, number: _object(root, number).unlink(missing_ok=True),
    "an object harmed": _harm_object,
    "an object's mode": lambda root, number: _object(root, number).chmod((0o444, 0o644)[number % 2]),
    "params": lambda root, number: _replaced(root, "params.yaml", "seed: ", f"seed: {number % 8 + 1}"),
    "a command": lambda root, number: write(
        root, "tune/00/dvc.yaml", json.loads(json.dumps(BESIDE).replace("m tune", f"m tune --x {number % 2}"))
    ),
    "a dep less": lambda root, _: write(root, "dvc.yaml", json.loads(json.dumps(ROOT).replace("split/${item}", "split"))),
    "the pipeline as it was": lambda root, _: [write(root, "dvc.yaml", ROOT), write(root, "tune/00/dvc.yaml", BESIDE)],
    "a lock's digest": lambda root, number: _replaced(root, ("dvc.lock", "tune/00/dvc.lock")[number % 2], "md5: 1", "md5: 2"),
    "a lock's command": lambda root, _: _replaced(root, "dvc.lock", "m embed", "m embedded"),
    "a lock gone": lambda root, _: (root / "tune/00/dvc.lock").unlink(missing_ok=True),
    "a stage of somebody else": lambda root, _: write(
        root, "data/x.dvc", {"outs": [{"path": "x", "hash": "md5", "md5": "0" * 32}]}
    ),
    "it is gone": lambda root, _: (root / "data/x.dvc").unlink(missing_ok=True),
    "what DVC ignores": lambda root, number: write(root, IGNORE[number % 2], ("one", "zzz")[number // 2 % 2]),
    "checkout": _checkout,
    "commit": _commit,
}


def _dvc_says(root: Path) -> dict[str, Any] | None:
    with opened(root) as repo:
        try:
            return json.loads(json.dumps(repo.status()))  # type: ignore[no-any-return]
        except COMPLAINTS:
            return None


def _we_say(layout: Layout) -> dict[str, Any] | None:
    try:
        return command.status(layout)
    except ProjectError:
        return None


class Answers:
    """DVC in this process, where one of its own takes a second. Attributes: asked: how often about some stages, and about all."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, layout: Layout, *targets: str, module: str = "dvc") -> tuple[int, str, str]:
        chosen = targets if module == command.STATUS else ()
        self.asked["some" if chosen else "all"] += 1
        with opened(layout.root) as repo, lock_repo(repo):
            try:
                return 0, json.dumps(stale_of(repo, chosen)), ""
            except COMPLAINTS:
                return 1, "", ""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project of which DVC recorded everything, in a place where DVC's own files are the project's."""
    root = tmp_path_factory.mktemp("template") / "project"
    root.mkdir()
    make(root)
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_NO_ANALYTICS", "1")
        patch.setenv("DVC_SITE_CACHE_DIR", str(root.parent / "site"))
        with chdir(root):
            Repo.init(str(root)).close()
        for _ in range(2):  # the first leaves .gitignore files
            _commit(root, 0)
        yield root


@pytest.mark.parametrize("examples", [5, pytest.param(100, marks=pytest.mark.campaign("minutes"))])
def test_what_is_remembered_is_what_dvc_says_whatever_happened_since(
    examples: int, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers()
    monkeypatch.setattr(command, "ask", answers)
    steps = st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(0, 2**20)), min_size=3, max_size=6)

    @settings(max_examples=examples, derandomize=examples < 10)
    @given(steps)
    def compare(changes: list[tuple[str, int]]) -> None:
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            layout = Layout(Path(folder).resolve() / "project")
            shutil.copytree(template, layout.root, symlinks=True)
            assert _we_say(layout) == {}
            before = answers.asked.total()
            assert (_we_say(layout), answers.asked.total()) == ({}, before), "without DVC"
            for name, number in changes:
                CHANGES[name](layout.root, number)
                ours = _we_say(layout)
                theirs = _dvc_says(layout.root)
                assert ours == (theirs and {plain_name(stage): reasons for stage, reasons in theirs.items()}), name

    compare()
    assert min(answers.asked["some"], answers.asked["all"]) > examples, "each way was tried"


def test_each_change_alone_is_seen(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "ask", Answers())
    for place, (name, change) in enumerate(CHANGES.items()):
        layout = Layout(tmp_path / str(place))
        shutil.copytree(template, layout.root, symlinks=True)
        assert _we_say(layout) == {}
        change(layout.root, 1)
        ours, theirs = _we_say(layout), _dvc_says(layout.root)
        assert ours == (theirs and {plain_name(stage): reasons for stage, reasons in theirs.items()}), name


def test_some_stages_are_told_as_dvc_status_tells_them(template: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(template, root, symlinks=True)
    write(root, "artifacts/tune/c1", "other")
    write(root, "artifacts/split/a", "other")
    (root / "score.json").unlink()
    chosen = ["embed@a", "tune/00/dvc.yaml:tune@c1", "score"]
    with opened(root) as repo, lock_repo(repo):
        theirs, ours = repo.status(targets=chosen), stale_of(repo, chosen)
    assert ours == theirs
    assert set(ours) == set(chosen), "and of none that was not named"
