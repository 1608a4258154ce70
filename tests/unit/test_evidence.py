"""dvc.lock as facts, comparisons that name what differs, and a receipt without personal data."""

import json
from pathlib import Path

import pytest
from builders import CANARY_SUBJECT, make_params, make_record, make_tree, refused

from lmeraser.core.clustering import Member
from lmeraser.core.errors import ProjectError
from lmeraser.erase.plan import Facts, make_plan
from lmeraser.prove.lock import compare, outs_by_stage, read_outs
from lmeraser.prove.receipt import LIMITS, make_receipt

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
    found = compare({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    assert (found.equal, found.artifacts, found.differing) == (True, 2, [])


def test_comparison_names_what_differs_and_what_stands_on_one_side_alone() -> None:
    found = compare({"same": "1", "other": "1", "left": "1"}, {"same": "1", "other": "2", "right": "1"})
    assert not found.equal
    assert found.differing == ["left", "other", "right"]
    assert found.artifacts == 4


def test_comparing_nothing_is_not_equal() -> None:
    assert not compare({}, {}).equal


def receipt() -> dict[str, object]:
    records = [make_record(CANARY_SUBJECT, "one", image=b"1"), make_record("ben", "two", image=b"2"), make_record("cem", "one")]
    public = [make_record("p", "one", "public"), make_record("q", "two", "public")]
    members = [Member(r.id, r.sha256, r.label, r.subject, 0, "p00") for r in records]
    facts = Facts(make_params(), public, records, members, make_tree(0, 2), ["c00"])
    plan = make_plan([CANARY_SUBJECT], facts, include_public=False).to_json()
    about = {"device": "cpu", "code_revision": "abc", "received_at": "2026", "completed_at": "2026", "source": plan["source"]}
    return make_receipt("id", plan, {"a": "1", "b": "1", "old": "1"}, {"a": "2", "b": "1", "new": "1"}, ["checked"], about)


def test_receipt_names_changed_artifacts_before_and_after_and_counts_the_others() -> None:
    made = receipt()
    assert made["artifacts"] == {
        "a": {"before": "1", "after": "2"},
        "new": {"before": None, "after": "1"},
        "old": {"before": "1", "after": None},
    }
    assert made["artifacts_unchanged"] == 1
    assert made["checks"] == ["checked"]
    assert made["limits"] == list(LIMITS)


def test_receipt_holds_no_personal_value() -> None:
    assert "CANARY" not in json.dumps(receipt())


def test_receipt_tells_the_environment_that_made_it() -> None:
    made = receipt()
    assert made["environment"]["device"] == "cpu"  # type: ignore[index]
    assert made["environment"]["torch"] != "absent"  # type: ignore[index]
    assert len(str(made["environment_fingerprint"])) == 16


@pytest.mark.parametrize(
    "text", ["stages: {a: }", "stages: {a: [1]}", "stages: {a: {outs: }}", "stages: {a: {outs: [{path: x}]}}"]
)
def test_lock_that_is_damaged_inside_a_stage_is_refused(tmp_path: Path, text: str) -> None:
    path = lock(tmp_path, text)
    refused(ProjectError, lambda: read_outs(path))


def test_lock_without_a_single_stage_is_refused(tmp_path: Path) -> None:
    path = lock(tmp_path, "stages: {}")
    refused(ProjectError, lambda: read_outs(path))


def test_receipt_leaves_its_arguments_as_they_were() -> None:
    about = {"device": "cpu", "source": "x"}
    first = make_receipt("id", {}, {}, {}, [], about)
    assert make_receipt("id", {}, {}, {}, [], about) == first
