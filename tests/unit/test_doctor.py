"""`lmeraser doctor`: what is wrong is found, said in a line with what to do, and left as it is."""

import fcntl
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from builders import contents

from flows import git
from flows.cli import command_line
from flows.doctor import machine, project, stores
from flows.doctor.checkup import OK, WARN, WRONG, Finding, examine, is_sound, wrong
from flows.project import Project
from flows.start.presets import Wish
from flows.start.project_folder import make
from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.erase.erased import ErasedList, load_or_create_key
from lmeraser.prove.keys import init, signing_key_path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("doctor") / "project"
    make(place, Wish())
    return place


@pytest.fixture
def layout(made: Path, tmp_path: Path) -> Layout:
    """A project of its own, with a ledger that has a request, and keys."""
    shutil.copytree(made, tmp_path / "project", symlinks=True)
    layout = Layout(tmp_path / "project")
    layout.private_state.mkdir(mode=0o700)
    own = Project(layout)
    key = own.ensure_subject_key()
    own.ledger.receive("5eed0000-0000-4000-8000-000000000001", [key.pseudonym("CANARY")], False, 30)
    own.ledger.close()
    init(signing_key_path(layout.private_state), layout.public_keys, replace=False)
    git.commit_all(layout.root, "test", "test@localhost", "keys")
    return layout


def findings(layout: Layout) -> dict[str, list[Finding]]:
    checks = [check for check in project.project_checks(layout) if check[0] not in ("code", "server")]
    by_name: dict[str, list[Finding]] = {}
    for finding in examine(checks):
        assert "CANARY" not in finding.text + finding.advice
        by_name.setdefault(finding.check, []).append(finding)
    return by_name


def test_whole_project_is_sound_and_stays_as_it_is(layout: Layout) -> None:
    before = contents(layout.root)
    checks = findings(layout)
    after = contents(layout.root)
    assert {name: [f.verdict for f in listed] for name, listed in checks.items() if any(f.verdict != OK for f in listed)} == {
        "ledger": [WARN]  # the open request
    }
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} <= {
        f".lmeraser/ledger.db{end}" for end in ("-wal", "-shm")
    }


def test_nothing_is_made_in_a_project_that_was_never_used(made: Path) -> None:
    before = contents(made)
    assert is_sound([finding for listed in findings(Layout(made)).values() for finding in listed])
    assert contents(made) == before


def _lose(name: str) -> Callable[[Layout], object]:
    return lambda layout: (layout.root / name).unlink()


def _chmod(name: str) -> Callable[[Layout], object]:
    return lambda layout: (layout.root / name).chmod(0o644)


def _write(name: str, text: str) -> Callable[[Layout], object]:
    def write(layout: Layout) -> None:
        (layout.root / name).parent.mkdir(parents=True, exist_ok=True)
        (layout.root / name).write_text(text)

    return write


def _remember_somebody(layout: Layout) -> None:
    key = load_or_create_key(layout.private_state / "subject.key")
    ErasedList(key.id, frozenset({key.pseudonym("CANARY")})).remember(layout)


def _break_chain(layout: Layout) -> None:
    script = "DROP TRIGGER events_no_update; UPDATE events SET data = '{}';"
    with sqlite3.connect(layout.ledger) as database:
        database.executescript(script)


@pytest.mark.parametrize(
    ("check", "break_it", "says"),
    [
        ("subject key", _lose(".lmeraser/subject.key"), "missing"),
        ("subject key", _chmod(".lmeraser/subject.key"), "expected 0600"),
        ("signing key", _lose(".lmeraser/certificate.key"), "missing"),
        ("signing key", _chmod(".lmeraser/certificate.key"), "expected 0600"),
        ("signing key", _write("data/certificate-keys.pem", "CANARY"), "damaged"),
        ("ledger", _chmod(".lmeraser/ledger.db"), "expected 0600"),
        ("ledger", _write(".lmeraser/ledger.db", "CANARY" * 1000), "damaged"),
        ("ledger", _break_chain, "event"),
        ("erased list", _lose("data/erased.json"), "missing"),
        ("erased list", _remember_somebody, "lacks 1 erased"),
        ("params", _write("params.yaml", "CANARY: [\n"), "not valid YAML"),
        ("source", _lose("data/digits.csv"), "missing"),
        ("remotes", _write(".dvc/config.local", "['remote \"far\"']\n    url = ssh://CANARY\n"), "ssh"),
        ("remotes", _write(".dvc/config.local", "['remote \"gone\"']\n    url = /nowhere/CANARY\n"), "cannot be reached"),
        ("git", lambda layout: shutil.rmtree(layout.root / ".git"), "no git repository"),
        ("locks", _write(".git/index.lock", ""), "index.lock"),
    ],
)
def test_what_is_wrong_is_found_and_said_with_what_to_do(
    layout: Layout, check: str, break_it: Callable[[Layout], object], says: str
) -> None:
    break_it(layout)
    bad = [finding for finding in findings(layout)[check] if finding.verdict == WRONG]
    assert len(bad) == 1
    assert says in bad[0].text
    assert bad[0].advice
    assert "\n" not in bad[0].text + bad[0].advice


def test_held_lock_hook_and_change_are_warnings(layout: Layout) -> None:
    hook = layout.root / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ndvc checkout\n")
    hook.chmod(0o755)
    (layout.root / "params.yaml").write_text((layout.root / "params.yaml").read_text() + "# changed\n")
    with layout.workspace_lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        checks = findings(layout)
    texts = [finding.text for name in ("git", "locks") for finding in checks[name] if finding.verdict == WARN]
    assert texts == ["1 hooks are active", "1 files differ from the commit", "a process changes this project now"]
    assert [finding.verdict for finding in findings(layout)["locks"]] == [OK]


def test_shallow_clone_is_wrong(layout: Layout, tmp_path: Path) -> None:
    (layout.root / "x").write_text("x")
    git.commit_all(layout.root, "test", "test@localhost", "another")
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", layout.root.as_uri(), str(tmp_path / "shallow")], check=True)
    bad = [finding.text for finding in findings(Layout(tmp_path / "shallow"))["git"] if finding.verdict == WRONG]
    assert bad == ["the clone is shallow, and a purge reads all of history"]


def test_remote_in_a_folder_answers(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    (layout.root / ".dvc" / "config.local").write_text(f"['remote \"near\"']\n    url = {tmp_path / 'remote'}\n")
    assert [finding.verdict for finding in findings(layout)["remotes"]] == [OK]


def test_server_that_does_not_answer_is_a_warning(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:CANARY")
    (verdict, text, advice), *more = stores.server(layout)
    assert (verdict, more) == (WARN, [])
    assert "CANARY" not in text + advice
    assert "does not answer" in text


def test_full_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**10, 10**10, 10**6))
    assert [result[0] for result in machine._disk(tmp_path, 0)] == [WARN, WARN]


def test_other_versions_than_pinned_are_a_warning_and_lower_ones_than_needed_are_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text("# made by a tool\nnumpy==1.0 ; python_version < '3.0'\nnumpy==1.1\n    # via pandas\nnot-installed==3\n")
    assert [(verdict, text) for verdict, text, _ in machine._pins(pins)] == [(WARN, "1 of another version than pinned: numpy")]
    monkeypatch.setattr(machine, "requires", lambda _: ["numpy>=99", "nobody-has-this", "moto ; extra == 'dev'"])
    assert [(verdict, text) for verdict, text, _ in machine._requirements()] == [
        (WRONG, "missing: nobody-has-this; of another version than needed: numpy")
    ]


@pytest.mark.parametrize(("kept", "compiled", "warned"), [(False, False, 1), (False, True, 0), (True, False, 0)])
def test_code_that_every_process_compiles_again_is_a_warning(
    kept: bool, compiled: bool, warned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", not kept)
    monkeypatch.setattr(machine, "_is_compiled", lambda _: compiled)
    assert [verdict for verdict, _, _ in machine._python()] == [OK] + [WARN] * warned


def test_bits_that_change_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from lmeraser.learn import environment

    answers = iter("ab")
    monkeypatch.setattr(environment, "network_answers", lambda _: next(answers))
    assert [result[0] for result in machine._bits()] == [WRONG]


def test_check_that_cannot_look_is_a_finding_and_the_next_one_looks() -> None:
    def breaks() -> Sequence[tuple[str, str, str]]:
        raise RuntimeError("CANARY")

    def refuses() -> Sequence[tuple[str, str, str]]:
        raise ProjectError("it is away; fetch it; then retry")

    checks = examine([("a", breaks), ("b", refuses), ("c", lambda: [wrong("x", "y")])])
    assert [(f.text, f.advice) for f in checks][1:] == [("it is away", "fetch it; then retry"), ("x", "y")]
    assert "CANARY" not in checks[0].text + checks[0].advice
    assert not is_sound(checks)
    assert not is_sound([])
    assert is_sound([Finding("a", WARN, "x"), Finding("b", OK, "y")])


def test_outside_of_a_project_the_machine_alone_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "machine_checks", lambda *_: [("bits", lambda: [wrong("they differ " * 20, "mend it " * 20)])])
    for form in ([], ["--json"]):
        with pytest.raises(SystemExit) as end:
            command_line.main(["doctor", *form])
        assert end.value.code == 1
    lines, _, answer = capsys.readouterr().out.rpartition("\n{")
    assert all(len(line) <= 80 for line in lines.splitlines())
    answered = json.loads("{" + answer)
    assert (answered["sound"], answered["project"], [check["verdict"] for check in answered["checks"]]) == (False, False, [WRONG])
