"""A recording leaves what `dvc commit --force` of the same targets leaves: locks, cache and run entries, byte for byte."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import preloading
import pytest
import yaml
from sandbox import Sandbox

pytestmark = pytest.mark.slow

ROOT = {
    "stages": {
        "split": {
            "cmd": "python -m split --with-a-word --and-another-one --so-that-the-line-is-longer-than-what-fits-into-one",
            "deps": ["source"],
            "params": ["rate", "names", "text", "deep"],
            "outs": ["made/split"],
        },
        "each": {
            "foreach": ["c00", "c01"],
            "do": {"cmd": "python -m each ${item}", "deps": ["made/split/a"], "params": ["names"], "outs": ["made/${item}"]},
        },
        "score": {"cmd": "python -m score", "deps": ["made"], "outs": [], "metrics": [{"score.json": {"cache": False}}]},
    }
}
BESIDE = {
    "stages": {
        "each": {
            "foreach": ["c02", "c03"],
            "do": {"cmd": "python -m each ${item}", "wdir": "../..", "deps": ["made/split/a"], "outs": ["made/${item}"]},
        }
    }
}
PARAMS = {
    "rate": 1e-05,
    "names": ["a b", "no", "1", "", "é", "x: y", "#", None, True, 1, 1.0, 12345678.9],
    "text": "a long text that goes on and on, " * 6,
    "deep": {"b": {"c": [1, [2, {"d": 0.1}]]}, "a": {}},
}


def write(root: Path, **files: object) -> None:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))


def make(root: Path) -> Path:
    """A small pipeline in two files, whose outs are there and recorded nowhere."""
    root.mkdir()
    write(root, dvc_dot_yaml=ROOT, tune__00__dvc_dot_yaml=BESIDE, params_dot_yaml=PARAMS, source__a="1", source__b="2")
    write(root, made__split__a="a", made__split__b__c="c", score_dot_json=json.dumps({"accuracy": 0.5}))
    write(root, **{f"made__c0{number}": f"slot {number % 3}" for number in range(4)})
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    run(root, "dvc", "init", "--quiet")
    return root


def run(root: Path, *arguments: str) -> str:
    """Returns: what was printed."""
    variables = preloading.variables(
        os.environ | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(root / ".dvc" / "tmp" / "site")}
    )
    code = variables.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join([*code, str(Path(__file__).resolve().parents[2])])
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=root, env=variables | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def left(root: Path) -> dict[str, bytes]:
    """Every file with its mode, but for what DVC remembers of this machine."""
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
    skipped = (".git/", ".dvc/tmp/", ".lmeraser/")
    kept = {name: path for name, path in files.items() if not name.startswith(skipped) and ".pyc" not in name}
    return {name: oct(path.stat().st_mode).encode() + path.read_bytes() for name, path in kept.items()}


def both(root: Path, tmp_path: Path, *targets: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What DVC leaves, and what the recording leaves, each in a copy."""
    sides = []
    for name, command in (("theirs", ("dvc", "commit", "--force")), ("ours", ("flows.dvc.record",))):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        shutil.copytree(root, tmp_path / name, symlinks=True)
        run(tmp_path / name, *command, *targets)
        sides.append(left(tmp_path / name))
    return sides[0], sides[1]


def require_equal(theirs: dict[str, bytes], ours: dict[str, bytes]) -> None:
    assert theirs.keys() == ours.keys()
    assert not [name for name, content in theirs.items() if ours[name] != content]


def test_first_recording_and_later_ones_leave_what_dvc_commit_leaves(tmp_path: Path) -> None:
    root = make(tmp_path / "project")
    first = ("each@c01", "tune/00/dvc.yaml:each@c03", "split", "score")
    theirs, ours = both(root, tmp_path, *first)
    require_equal(theirs, ours)
    assert {"dvc.lock", "tune/00/dvc.lock"} <= ours.keys()
    assert any(name.startswith(".dvc/cache/runs/") for name in ours)
    run(root, "flows.dvc.record", *first)
    # Some changed, one is new, one whole file, an out of other content in the same place.
    write(root, made__split__a="other", made__c03="other too", params_dot_yaml=PARAMS | {"rate": 2.5e-7, "names": ["z"]})
    (root / "made" / "split" / "b" / "c").unlink()
    require_equal(*both(root, tmp_path, "each@c00", "split", "tune/00/dvc.yaml", "score"))


def test_files_that_did_not_change_are_not_copied_again_because_a_request_links_to_them(tmp_path: Path) -> None:
    """Else each erasure would copy all records, and a scan read all of them: DVC then sets the objects' mode, so a stamp."""
    root = make(tmp_path / "project")
    run(root, "flows.dvc.record", "split")
    kept = [path for path in (root / ".dvc" / "cache" / "files").rglob("*") if path.is_file()] + [
        root / "made" / "split" / "b" / "c"
    ]
    os.link(kept[-1], tmp_path / "copy")
    stamps = {path: (path.stat().st_ino, path.stat().st_ctime_ns) for path in kept}
    write(root, made__split__a="other")
    run(root, "flows.dvc.record", "split")
    assert len(stamps) == 4
    assert {path: (path.stat().st_ino, path.stat().st_ctime_ns) for path in stamps} == stamps


def test_lock_that_somebody_edited_is_recorded_as_dvc_records_it(tmp_path: Path) -> None:
    root = make(tmp_path / "project")
    run(root, "dvc", "commit", "--force", "split", "each@c00")
    text = (root / "dvc.lock").read_text()
    (root / "dvc.lock").write_text(f"# a note\n{text}# the end\n")
    write(root, made__split__a="other")
    theirs, ours = both(root, tmp_path, "each@c00", "split")
    require_equal(theirs, ours)
    assert b"# a note" in ours["dvc.lock"]


def test_stages_of_a_request_are_recorded_as_dvc_commit_records_them(project: Sandbox, tmp_path: Path) -> None:
    shutil.rmtree(project.root / ".dvc" / "cache")
    lock = project.root / "dvc.lock"
    lock.write_text(re.sub(r"md5: .{4}", "md5: 0000", lock.read_text()))  # as if each had made something else before
    require_equal(*both(project.root, tmp_path, "split", "embed@p00", "cluster", "validate", "tune@c00", "head", "evaluate"))


def test_folders_of_shards_are_recorded_as_dvc_commit_records_them(project: Sandbox, tmp_path: Path) -> None:
    project.json("parts", "3")
    done = project.python("-m", "stages.split")
    assert done.returncode == 0, done.stderr
    theirs, ours = both(project.root, tmp_path, "split", "embed@p00", "embed@p01", "cluster", "validate", "evaluate")
    require_equal(theirs, ours)
    assert b"shards: 3" in ours["dvc.lock"]


def test_stage_that_made_nothing_is_recorded_by_nobody(tmp_path: Path) -> None:
    root = make(tmp_path / "project")
    (root / "score.json").unlink()
    with pytest.raises(AssertionError, match="record: OutputDoesNotExistError"):
        run(root, "flows.dvc.record", "split", "score")
    assert not (root / "dvc.lock").exists(), "not even what came before it"


def test_recording_waits_for_nobody_and_takes_dvc_s_lock(tmp_path: Path) -> None:
    root = make(tmp_path / "project")
    code = "import zc.lockfile as z, time; held = z.LockFile('.dvc/tmp/lock'); print(1, flush=True); time.sleep(60)"
    holder: Any = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        with pytest.raises(AssertionError, match="record: LockError"):
            run(root, "flows.dvc.record", "split")
    finally:
        holder.kill()
        holder.communicate()
    assert not (root / "dvc.lock").exists()


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _: None,
    "a file of a folder of the source": lambda root: write(root, source__a="other"),
    "one more file there": lambda root: write(root, source__z="more"),
    "a file of an output": lambda root: write(root, made__split__a="other"),
    "an output gone": lambda root: (root / "made" / "c02").unlink(),
    "params": lambda root: write(root, params_dot_yaml=PARAMS | {"names": ["z"]}),
    "a command": lambda root: write(root, tune__00__dvc_dot_yaml=json.loads(json.dumps(BESIDE).replace("m each", "m other"))),
    "a lock gone": lambda root: (root / "tune" / "00" / "dvc.lock").unlink(),
    "all outputs gone": lambda root: shutil.rmtree(root / "made"),
}


@pytest.mark.parametrize("busy", [False, True])
def test_stale_stages_are_told_as_dvc_status_tells_them(busy: bool, tmp_path: Path) -> None:
    root = make(tmp_path / "project")
    for _ in range(2):  # the first leaves a .gitignore in a folder that a stage reads
        run(root, "dvc", "commit", "--force")
    if busy:  # somebody's stage reads: a process that lives
        held = {"read": {str(root / "source"): [{"pid": os.getpid(), "cmd": "a stage"}]}}
        (root / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(held))
    for name, change in CHANGES.items():
        copy = tmp_path / name
        shutil.copytree(root, copy)
        change(copy)
        theirs, ours = json.loads(run(copy, "dvc", "status", "--json")), json.loads(run(copy, "flows.dvc.status"))
        assert ours == theirs, name
        assert bool(theirs) == (name != "nothing")


def test_nobody_is_told_what_is_stale_while_a_stage_writes(tmp_path: Path) -> None:
    root = make(tmp_path / "project")
    run(root, "dvc", "commit", "--force")
    held = {"write": {str(root / "made" / "c00"): {"pid": os.getpid(), "cmd": "a stage"}}}
    (root / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(held))
    with pytest.raises(AssertionError):
        run(root, "flows.dvc.status")
