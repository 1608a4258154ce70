"""dvc.lock as facts, comparisons that name what differs."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import refused
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.errors import ProjectError
from lmeraser.pipeline import locks
from lmeraser.pipeline.locks import compare, digest_of_locks, outs_by_stage, read_files, read_outs

LOCK = """schema: '2.0'
stages:
  split:
    cmd: python -m stages.split
    deps: [{path: data, md5: d0}]
    outs: [{path: a, md5: a1, size: 1}, {path: b, md5: b1, size: 1}]
  tune@c00: {cmd: x, outs: [{path: c, md5: c1}]}
  check: {cmd: x}
"""


def lock(folder: Path, text: str | bytes) -> Path:
    path = folder / "dvc.lock"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_outs_of_every_stage_are_read(tmp_path: Path) -> None:
    path = lock(tmp_path, LOCK)
    assert read_outs(path) == {"a": "a1", "b": "b1", "c": "c1"}
    assert outs_by_stage(path) == {"split": {"a": "a1", "b": "b1"}, "tune@c00": {"c": "c1"}, "check": {}}


@pytest.mark.parametrize(
    "text", [b"", b"CANARY", b"- CANARY", b"stages:", b"stages: []", b"schema: '2.0'", b"stages: {a: [", b"\xff\xfe"]
)
def test_empty_or_damaged_lock_is_refused(tmp_path: Path, text: bytes) -> None:
    path = lock(tmp_path, text)
    refused(ProjectError, lambda: read_outs(path))
    refused(ProjectError, lambda: outs_by_stage(path))


def test_missing_lock_is_refused(tmp_path: Path) -> None:
    assert "run `dvc repro`" in refused(ProjectError, lambda: read_outs(tmp_path / "dvc.lock"))


def test_equal_outs_are_equal() -> None:
    comparison = compare({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    assert (comparison.equal, comparison.artifacts, comparison.differing) == (True, 2, [])


def test_comparison_names_what_differs_and_what_stands_on_one_side_alone() -> None:
    comparison = compare({"same": "1", "other": "1", "left": "1"}, {"same": "1", "other": "2", "right": "1"})
    assert not comparison.equal
    assert comparison.differing == ["left", "other", "right"]
    assert comparison.artifacts == 4


def test_comparing_nothing_is_not_equal() -> None:
    assert not compare({}, {}).equal


def test_files_are_named_as_dvc_names_them(tmp_path: Path) -> None:
    from dvc.repo import Repo

    for name in ("folder/b.bin", "folder/a/c.txt", "folder/a/é.txt", "alone.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode() + b"\r\n")
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        hashes = {path: repo.add(str(tmp_path / path))[0].outs[0].hash_info.value for path in ("folder", "alone.txt")}
    assert read_files(tmp_path, hashes) == hashes


def test_one_flipped_bit_is_seen_though_size_and_time_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"weights")
    stamp, before = path.stat(), read_files(tmp_path, ["a"])
    path.write_bytes(b"weighus")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert compare(before, read_files(tmp_path, ["a"])).differing == ["a"]
    path.unlink()
    assert compare(before, read_files(tmp_path, ["a"])).differing == ["a"]


def test_any_lock_that_changes_changes_the_state(tmp_path: Path) -> None:
    (tmp_path / "tune" / "00").mkdir(parents=True)
    for name in ("dvc.yaml", "tune/00/dvc.yaml", "dvc.lock", "tune/00/dvc.lock"):
        (tmp_path / name).write_text("stages: {}\n")
    states = [digest_of_locks(tmp_path)]
    for name in ("dvc.lock", "tune/00/dvc.lock"):
        (tmp_path / name).write_text("stages: {a: {}}\n")
        states.append(digest_of_locks(tmp_path))
    (tmp_path / "tune/00/dvc.lock").unlink()
    states.append(digest_of_locks(tmp_path))
    assert len(set(states)) == len(states)


def test_same_text_is_parsed_once_and_another_one_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes | str] = []

    def load(raw: bytes | str) -> object:
        parsed.append(raw)
        return {"stages": str(raw)}

    monkeypatch.setattr(locks, "_load", load)
    monkeypatch.setattr(locks, "_files", locks.Trees())
    monkeypatch.setattr(locks, "REMEMBERED", 20)
    texts = [b"first 10 b", b"other 10 b"]
    assert [locks.load_yaml(text) for text in texts * 3] == [{"stages": str(text)} for text in texts * 3]
    assert parsed == texts
    locks.load_yaml(b"a long one that stays alone")
    assert locks.load_yaml(texts[0]) == {"stages": str(texts[0])}
    assert parsed == [*texts, b"a long one that stays alone", texts[0]], "what was parsed long ago is let go"


PATHS = st.sampled_from(
    [
        "data/erased.json",
        "/srv/people/manifest.csv",
        "artifacts/split/private",
        "metrics.json",
        "0755",
        "true",
        "a: b/c",
        "é/ü",
        "-/x",
    ]
)
DIGESTS = st.one_of(
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.text("01234567", min_size=32, max_size=32),  # YAML takes these for numbers
    st.text("01", min_size=30, max_size=30).map("0b".__add__),
    st.text("0123456789abcdef", min_size=32, max_size=32).map("{}.dir".format),
)
FILES = st.fixed_dictionaries(
    {"path": PATHS, "hash": st.just("md5"), "md5": DIGESTS, "size": st.integers(0, 10**9)},
    optional={"nfiles": st.integers(0, 9), "isexec": st.booleans()},
)
STAGES = st.fixed_dictionaries(
    {
        "cmd": st.sampled_from(
            ["python -m stages.tune c64", "yes", "a: b", "python -m x # no", "echo 'two  spaces'", "2001-01-01 x"]
        ),
        "deps": st.lists(FILES, max_size=3),
        "outs": st.lists(FILES, max_size=2),
    },
    optional={"params": st.just({"params.yaml": {"tune": {"epochs": 25, "rate": 0.1}, "seed": "0x1f", "slots": ["c00", "n"]}})},
)


@given(st.dictionaries(st.sampled_from(["split", "tune@c00", "head", "n", "no", "5", "a b", "tune@x:y"]), STAGES, min_size=1))
def test_a_lock_and_a_run_entry_are_what_yaml_says_however_they_are_parsed(stages: dict[str, Any]) -> None:
    from dvc.utils.serialize import dumps_yaml

    lock = dumps_yaml({"schema": "2.0", "stages": stages})
    for text in (lock, *(dumps_yaml(stage) for stage in stages.values())):
        plain = yaml.safe_load(text)
        assert locks.load_yaml(text) == plain
        assert locks.load_yaml(text.encode()) == plain


def test_what_dvc_writes_of_our_stages_needs_no_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else hundreds of versions in git's history cost a request minutes."""
    item = "    - path: {}/{}\n      hash: md5\n      md5: d41d8cd98f00b204e9800998ecf8427e\n      size: 17\n"
    stage = "  tune@c{}:\n    cmd: python -m stages.tune c{}\n    deps:\n{}    outs:\n{}"
    entries = [
        stage.format(n, n, item.format("artifacts/cluster/members", n), item.format("artifacts/tune", n)) for n in range(9)
    ]
    monkeypatch.setattr(locks, "_load_any", pytest.fail)
    for name in ("_files", "_entries", "_params"):
        monkeypatch.setattr(locks, name, locks.Trees())
    assert len(locks.load_yaml(locks.SCHEMA + "".join(entries))["stages"]) == len(entries)
