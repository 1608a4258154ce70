"""A copy is to its caller what a fresh process is, and nobody is answered by a copy that is not.

The process that forks is a real one here, of a small command in the place of DVC and the scan.
"""

import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import processes
from flows.dvc import command
from flows.forks import client, server
from lmeraser.core import determinism
from lmeraser.core.layout import Layout

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes fork on Linux alone")

ROOT = Path(__file__).resolve().parents[2]
SPOKEN = """
import json, os, resource, subprocess, sys, time
kept = []
def opened():
    names = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return [os.readlink(name) for name in names if os.path.exists(name)]
def main():
    what, *rest = sys.argv[1:]
    if what == "tell":
        kept.append(1)
        print(json.dumps({
            "folder": os.getcwd(), "variable": os.environ.get("OF_THIS_CALL"), "before": os.environ.get("OF_THE_SERVER"),
            "given": sys.stdin.read(), "umask": os.umask(0), "limit": resource.getrlimit(resource.RLIMIT_FSIZE),
            "group": os.getpgid(0) == os.getpid(), "calls": len(kept), "rest": rest,
            "open": sorted(opened()),
        }))
        print("a complaint", file=sys.stderr)
        return 0
    if what == "end":
        return int(rest[0])
    if what == "crash":
        raise IndexError("of a command")
    if what == "interrupted":
        open(rest[0], "w").write(str(os.getpid()))
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            print("finishing", flush=True)
            return 130
    if what == "sleep":
        child = subprocess.Popen(["sleep", "60"])
        open(rest[0], "w").write(f"{os.getpid()} {child.pid}")
        time.sleep(60)
    return 0
"""
START = """
import sys
from flows.forks import server
server.COMMANDS, server.LATE = ("spoken",), ()
sys.exit(server.main())
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A folder that looks like a project, with code of its own."""
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "spoken.py").write_text(SPOKEN)
    (tmp_path / "lmeraser").mkdir()
    (tmp_path / "lmeraser" / "code.py").write_text("1")
    layout = Layout(tmp_path)
    layout.private_state.mkdir(mode=0o700)
    return layout


def variables(layout: Layout) -> dict[str, str]:
    return determinism.settled(os.environ) | {"PYTHONPATH": f"{layout.root}{os.pathsep}{ROOT}"}


@pytest.fixture
def forking(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[str]"]:
    """The process that forks; this one has its variables."""
    for name, value in variables(layout).items():
        monkeypatch.setenv(name, value)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", START, str(layout.forks)],
        cwd=layout.root,
        env=variables(layout) | {"OF_THE_SERVER": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    assert process.stderr.readline() == "forks: ready\n", process.stderr.read()
    yield process
    process.kill()
    process.communicate()


def ask(layout: Layout, *arguments: str, given: bytes = b"") -> processes.Completed:
    done = client.ask(layout, "spoken", arguments, given)
    assert done
    return done


def wait_for(what: Any) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def sleeping(layout: Layout, folder: Path) -> client.Copy:
    """A command that runs, with a child of its own."""
    copy = client.start(layout, "spoken", ["sleep", str(folder / "pids")], 2)
    assert copy
    wait_for((folder / "pids").exists)
    wait_for((folder / "pids").read_text)
    return copy


def pids_in(folder: Path) -> list[int]:
    """Of that command and its child."""
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def alive(process: int) -> bool:
    """Whether it runs: who has ended and was not asked about yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.usefixtures("forking")
def test_copy_has_folder_variables_input_umask_limits_and_locks_of_its_caller(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THIS_CALL", "é")
    before, limits = os.umask(0o027), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**40, limits[1]))
    try:
        with (tmp_path / "held.lock").open("w") as lock:
            monkeypatch.setattr(processes, "INHERITED_LOCKS", [lock.fileno()])
            done = ask(layout, "tell", "a b", "é", given=b"x" * 300_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        os.umask(before)
    told = json.loads(done.stdout)
    opened = told.pop("open")
    assert told == {
        "folder": str(layout.root),
        "variable": "é",
        "before": None,
        "given": "x" * 300_000,
        "umask": 0o027,
        "limit": [2**40, limits[1]],
        "group": True,
        "calls": 1,
        "rest": ["a b", "é"],
    }
    assert str(tmp_path / "held.lock") in opened
    devices = [path for path in opened if path.startswith(("/proc", "/dev")) and not path.startswith(str(tmp_path))]
    files = [path for path in opened if path.startswith("/") and path not in devices]
    assert files == [str(tmp_path / "held.lock")], "nothing that the process before it had open"
    assert (done.returncode, done.stderr) == (0, b"a complaint\n")


@pytest.mark.usefixtures("forking")
def test_each_command_begins_where_the_first_one_began(layout: Layout) -> None:
    assert [json.loads(ask(layout, "tell").stdout)["calls"] for _ in range(3)] == [1, 1, 1]


@pytest.mark.usefixtures("forking")
def test_exit_status_and_errors_are_those_of_a_process(layout: Layout) -> None:
    assert [ask(layout, "end", str(status)).returncode for status in (0, 3, 255)] == [0, 3, 255]
    crashed = ask(layout, "crash")
    assert crashed.returncode == 1
    assert crashed.stderr.decode().splitlines()[-1] == "IndexError: of a command"


@pytest.mark.usefixtures("forking")
def test_command_whose_caller_is_gone_is_killed_with_all_that_it_started(layout: Layout, tmp_path: Path) -> None:
    copy = sleeping(layout, tmp_path)
    pids = pids_in(tmp_path)
    assert pids[0] == copy.pid
    copy.abandon()
    wait_for(lambda: not any(map(alive, pids)))
    assert ask(layout, "end", "4").returncode == 4


@pytest.mark.usefixtures("forking")
def test_command_is_stopped_like_any_other(layout: Layout, tmp_path: Path) -> None:
    copy = sleeping(layout, tmp_path)
    with pytest.raises(TimeoutError):
        copy.wait(0.01)
    processes.stop([copy], patience=5)
    assert copy.wait() == -signal.SIGTERM
    assert not alive(copy.pid)


@pytest.mark.usefixtures("forking")
def test_copy_holds_nothing_of_another_that_runs_beside_it(layout: Layout, tmp_path: Path) -> None:
    def kinds() -> list[str]:
        opened = json.loads(ask(layout, "tell").stdout)["open"]
        return sorted(name.partition(":")[0] for name in opened if not name.startswith("/proc"))

    alone = kinds()
    copy = sleeping(layout, tmp_path)
    assert kinds() == alone
    processes.stop([copy], patience=5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["told", "killed"])
def test_commands_end_with_the_forking_process_though_their_caller_says_nothing(
    layout: Layout, tmp_path: Path, forking: "subprocess.Popen[str]", number: int
) -> None:
    copy = sleeping(layout, tmp_path)
    pids = pids_in(tmp_path)
    forking.send_signal(number)
    # Killed, it can tell the command's own process alone; what that started the caller ends.
    wait_for(lambda: not any(map(alive, pids if number == signal.SIGTERM else pids[:1])))
    copy.wait()
    wait_for(lambda: not any(map(alive, pids)))


def test_where_the_forking_process_dies_its_commands_die_and_are_told_as_killed(
    layout: Layout, tmp_path: Path, forking: "subprocess.Popen[str]"
) -> None:
    copy = sleeping(layout, tmp_path)
    forking.kill()
    assert copy.wait() == -signal.SIGKILL
    wait_for(lambda: not any(map(alive, pids_in(tmp_path))))
    assert client.ask(layout, "spoken", ["end", "0"]) is None, "nobody answers any more"


def test_forking_process_that_is_told_to_end_takes_its_commands_along(
    layout: Layout, tmp_path: Path, forking: "subprocess.Popen[str]"
) -> None:
    copy = sleeping(layout, tmp_path)
    forking.terminate()
    assert copy.wait() < 0
    assert forking.wait(10) == 0


def test_other_code_is_refused_and_ends_the_forking_process(layout: Layout, forking: "subprocess.Popen[str]") -> None:
    (layout.root / "lmeraser" / "code.py").write_text("2")
    assert client.ask(layout, "spoken", ["end", "0"]) is None
    assert forking.wait(10) == 0
    assert forking.stderr
    assert forking.stderr.read().splitlines()[-1] == "forks: the code changed; ending"


@pytest.mark.usefixtures("forking")
@pytest.mark.parametrize(
    "other",
    [("PYTHONHASHSEED", "7"), ("LC_ALL", "C"), ("PYTHONPATH", "/elsewhere"), ("LD_PRELOAD", "")],
    ids=lambda other: other[0],
)
def test_caller_with_other_variables_of_those_read_at_the_start_is_refused(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, other: tuple[str, str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv(*other)
        assert client.ask(layout, "spoken", ["end", "0"]) is None
    assert ask(layout, "end", "0").returncode == 0


@pytest.mark.usefixtures("forking")
def test_project_s_own_folder_on_the_path_and_what_libraries_set_make_no_difference(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("KMP_INIT_AT_FORK", "FALSE")
    assert ask(layout, "end", "0").returncode == 0


@pytest.mark.usefixtures("forking")
def test_no_other_module_is_run(layout: Layout) -> None:
    assert client.ask(layout, "json.tool", ["--help"]) is None
    assert ask(layout, "end", "0").returncode == 0


@pytest.mark.usefixtures("forking")
@pytest.mark.parametrize(
    "message", [b"", b"GET / HTTP/1.1\r\n\r\n", (2).to_bytes(8, "big") + b"{}"], ids=["nothing", "noise", "empty"]
)
def test_message_that_is_no_request_harms_nobody(layout: Layout, message: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(layout.forks))
        connection.sendall(message)
        connection.shutdown(socket.SHUT_WR)
        assert b"process" not in connection.recv(100)
    assert ask(layout, "end", "0").returncode == 0


@pytest.mark.usefixtures("forking")
def test_socket_is_closed_to_other_users(layout: Layout) -> None:
    assert layout.forks.parent.stat().st_mode & 0o777 == 0o700
    assert layout.forks.stat().st_mode & 0o777 == 0o600


def test_without_a_forking_process_a_fresh_one_is_started(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.warm.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as gone:  # left behind by one that was killed
        gone.bind(str(layout.forks))
    started: list[list[str]] = []

    def answer(arguments: list[str], _: Layout) -> tuple[int, str, str]:
        started.append(arguments)
        return 0, "{}", ""

    monkeypatch.setattr(processes, "output_of", answer)
    assert command.status(layout) == {}
    assert [arguments[1:] for arguments in started] == [["-m", "flows.dvc.status"]]


def test_dvc_itself_is_asked_where_our_way_of_asking_fails(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(arguments: list[str], _: Layout) -> tuple[int, str, str]:
        asked.append(arguments[2])
        return (0, "{}", "") if arguments[2] == "dvc" else (1, "", "")

    monkeypatch.setattr(processes, "output_of", answer)
    assert command.status(layout) == {}
    assert asked == ["flows.dvc.status", "dvc"]


def test_answers_of_a_copy_are_taken_as_those_of_a_process(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = b'{"tune/00/dvc.yaml:tune@c70": ["changed command"]}'
    monkeypatch.setattr(client, "ask", lambda *_: processes.Completed([], 0, stale, b""))
    assert command.status(layout) == {"tune@c70": ["changed command"]}


def test_commands_that_are_run_in_copies_are_modules_that_are_there() -> None:
    for module in server.COMMANDS[1:]:
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


def test_locks_are_held_until_the_copy_ends(
    layout: Layout, tmp_path: Path, forking: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "held.lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        monkeypatch.setattr(processes, "INHERITED_LOCKS", [lock.fileno()])
        copy = sleeping(layout, tmp_path)
    with path.open("w") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        processes.stop([copy], patience=5)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


IN_PLACE = """
import sys
from pathlib import Path
from flows.forks import client
from lmeraser.core.layout import Layout

class Copy(client.Copy):
    def wait(self, *arguments):
        if len(sys.argv) > 2:
            Path(f"{sys.argv[2]}.awaited").touch()
        return super().wait(*arguments)

client.Copy = Copy
print(client.run(Layout(Path.cwd()), "spoken", sys.argv[1:]), flush=True)
"""


def in_place(layout: Layout, *arguments: str, **streams: Any) -> "subprocess.Popen[str]":
    """A process that lets a copy do what it is asked for."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", IN_PLACE, *arguments], cwd=layout.root, env=variables(layout), text=True, **streams
    )


@pytest.mark.usefixtures("forking")
def test_command_of_a_copy_has_the_callers_own_streams_and_its_status_is_the_callers(layout: Layout) -> None:
    caller = in_place(layout, "tell", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said, complained = caller.communicate("typed")
    told, status = said.splitlines()
    assert (json.loads(told)["given"], complained, status) == ("typed", "a complaint\n", "0")
    ended = in_place(layout, "end", "3", stdout=subprocess.PIPE)
    assert ended.communicate()[0] == "3\n"


@pytest.mark.usefixtures("forking")
def test_interrupt_of_the_caller_is_the_copys_and_it_is_waited_for(layout: Layout, tmp_path: Path) -> None:
    caller = in_place(layout, "interrupted", str(tmp_path / "there"), stdout=subprocess.PIPE)
    wait_for((tmp_path / "there").exists)
    wait_for((tmp_path / "there").read_text)
    wait_for((tmp_path / "there.awaited").exists)  # before that a caller who is interrupted hangs up, and the copy is killed
    caller.send_signal(signal.SIGINT)
    assert caller.communicate(timeout=20)[0].split() == ["finishing", "130"]


def test_without_a_process_that_forks_nobody_does_it(layout: Layout) -> None:
    assert client.run(layout, "spoken", ["tell"]) is None
