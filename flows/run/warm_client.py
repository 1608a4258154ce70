"""Ask the processes that stay warm (`stages/runtime/warm.py`) to run stages; where there is none, a fresh one does the same."""

import fcntl
import json
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows import processes
from flows.dvc import command as dvc
from flows.run.devices import place
from lmeraser.core.code import code_digest
from lmeraser.core.errors import StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.core.sockets import fitting

Seconds = dict[str, float]  # by stage


@contextmanager
def reserved(layout: Layout, wanted: int) -> Iterator[list[Path]]:
    """Sockets of up to `wanted` idle warm processes, ours until the end of the block."""
    with ExitStack() as locks:
        sockets: list[Path] = []
        for path in sorted(layout.warm.glob("*.sock")):
            if len(sockets) == wanted:
                break
            handle = locks.enter_context(path.with_suffix(".busy").open("w"))
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if _answers(path):
                sockets.append(path)
        yield sockets


def _answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, fitting(path) as name:
            probe.settimeout(1)
            probe.connect(name)
    except OSError:  # nobody listens any more
        return False
    return True


def ask(layout: Layout, path: Path, names: Sequence[str], before: Path | None = None) -> Seconds | None:
    """Run stages in a warm process; None if it runs older code and ended.

    Args: before: folder of the state before, from which stages are updated.
    Raises: StepFailedError with the stage's own line, or if the process died.
    """
    fields = {"names": list(names), "code": code_digest(layout.root), "before": _named(layout, before)}
    job = json.dumps(fields).encode() + b"\n"
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            with fitting(path) as name:
                connection.connect(name)
            socket.send_fds(connection, [job], [sys.stderr.fileno()])
            while more := connection.recv(65536):
                answer += more
        reply = json.loads(answer)
    except (OSError, ValueError) as error:
        raise StepFailedError("the warm process died while it ran a stage; retry: no data was lost") from error
    if reply.get("stale"):
        return None
    if "line" in reply:
        raise StepFailedError(reply["line"], reply["exit_code"])
    return {str(name): float(seconds) for name, seconds in reply["seconds"].items()}


def _named(layout: Layout, before: Path | None) -> str | None:
    return None if before is None else before.relative_to(layout.root).as_posix()


def run_chains(layout: Layout, shares: Sequence[Sequence[str]], gpus: int = 0, before: Path | None = None) -> Seconds:
    """Run chains of stages side by side, in warm processes as far as there are idle ones.

    Args:
        gpus: that fresh processes are spread over, one each; the warm ones were spread when they started.
        before: folder of the state before, from which stages are updated; None: they run whole.
    Raises: StepFailedError with the line of the one that failed.
    """
    wanted = [share for share in shares if share]
    processes.clear_report(layout)
    with reserved(layout, len(wanted)) as warm:
        option = [] if before is None else ["--before", str(_named(layout, before))]
        rest = enumerate(wanted[len(warm) :], len(warm))
        cold = [_start(layout, [*option, *share], place(number, gpus)) for number, share in rest]
        seconds_of_shares, problems = _ask_all(layout, list(zip(warm, wanted, strict=False)), cold, before)
        if problems:
            raise problems[0]
        left = [share for share, seconds in zip(wanted, seconds_of_shares, strict=False) if seconds is None]
        more = [_start(layout, [*option, *share], place(number, gpus)) for number, share in enumerate(left)]
        dvc.finish([*cold, *more], layout, "a stage")
    return {name: seconds for share_seconds in seconds_of_shares if share_seconds for name, seconds in share_seconds.items()}


def _start(layout: Layout, share: Sequence[str], extra: dict[str, str]) -> processes.Process:
    return processes.start([sys.executable, "-m", "stages.runtime.chain", *share], layout, extra, stdout=sys.stderr)


def _ask_all(
    layout: Layout, jobs: Sequence[tuple[Path, Sequence[str]]], cold: Sequence[processes.Process], before: Path | None
) -> tuple[list[Seconds | None], list[StepFailedError]]:
    """The answers of warm processes, one thread each; if one fails, the cold processes are ended."""
    answers: list[Seconds | None] = [{} for _ in jobs]
    problems: list[StepFailedError] = []

    def ask_one(place: int) -> None:
        try:
            answers[place] = ask(layout, *jobs[place], before)
        except StepFailedError as error:
            problems.append(error)
            processes.stop(cold)

    threads = [threading.Thread(target=ask_one, args=(place,)) for place in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, problems
