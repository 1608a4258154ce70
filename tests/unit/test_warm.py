"""A warm process answers what is a job, refuses in words what is none, and ends by what would end a fresh process."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import assert_clean

from lmeraser.core.errors import ParamsError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from stages.runtime import warm

CODE = "c0de"


def job(code: str = CODE) -> bytes:
    return json.dumps({"names": ["tune@c00"], "code": code, "before": None}).encode() + b"\n"


def stage(act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every stage do this."""

    def run(layout: Layout, params: Params, names: list[str], before: str | None = None) -> dict[str, float]:
        act()
        return dict.fromkeys(names, 1.5)

    monkeypatch.setattr(warm, "read_project", lambda _: None)
    monkeypatch.setattr(warm, "run", run)


def reply(folder: Path, message: bytes, descriptors: int = 1) -> bytes:
    """What a caller is answered that sends a message with its standard error."""
    caller, connection = socket.socketpair()
    with caller, connection:
        if message:
            socket.send_fds(caller, [message], [2] * descriptors)
        if not message.endswith(b"\n"):  # whoever hangs up while its job runs ends the process
            caller.shutdown(socket.SHUT_WR)
        warm.serve_caller(connection, Layout(folder), CODE)
        connection.shutdown(socket.SHUT_WR)
        return caller.recv(65536)


def test_job_is_done_and_its_seconds_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage(lambda: None, monkeypatch)
    assert json.loads(reply(tmp_path, job())) == {"seconds": {"tune@c00": 1.5}}


def test_refusal_of_a_stage_is_its_line_and_exit_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise ParamsError("what to do next")

    stage(refuse, monkeypatch)
    assert json.loads(reply(tmp_path, job())) == {"line": "what to do next", "exit_code": 2}


def test_other_error_of_a_stage_is_not_told_as_a_wrong_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def crash() -> None:
        raise IndexError("of a stage")

    stage(crash, monkeypatch)
    with pytest.raises(IndexError):
        reply(tmp_path, job())
    assert "refused" not in capfd.readouterr().err


@pytest.mark.parametrize("message", [b"CANARY\n", b"{}\n", b"[]\n", b"3\n", b"{"], ids=repr)
def test_message_that_is_no_job_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], message: bytes
) -> None:
    assert reply(tmp_path, message) == b""
    line = capsys.readouterr().err.removesuffix("\n")
    assert "expected one line of JSON" in line
    assert_clean(line)


def test_job_without_a_standard_error_is_refused_and_a_mere_look_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reply(tmp_path, job(), descriptors=0) == b""
    assert "expected one line of JSON" in capsys.readouterr().err
    assert reply(tmp_path, b"") == b""
    assert capsys.readouterr().err == ""


def test_process_of_older_code_says_so_and_ends(tmp_path: Path) -> None:
    caller, connection = socket.socketpair()
    with caller, connection:
        socket.send_fds(caller, [job("other code")], [os.dup(2)])
        with pytest.raises(SystemExit):
            warm.serve_caller(connection, Layout(tmp_path), CODE)
        assert json.loads(caller.recv(65536)) == {"stale": True}
