"""DVC as a command: its Python API is internal, and unsafe in threads."""

import errno
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import yaml

from flows import processes
from flows.dvc import unchanged
from flows.dvc.config import cache
from flows.dvc.definitions import lists_of, names_of
from flows.forks import client as forks
from lmeraser.core.errors import ProjectError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params
from lmeraser.core.progress import say
from lmeraser.pipeline.files import ROOT_FILE, check_files, file_of, plain_name
from lmeraser.pipeline.locks import read_outs

CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGKILL}
RECORD, STATUS = "flows.dvc.record", "flows.dvc.status"


def finish(started: Sequence[processes.Running], layout: Layout, what: str) -> None:
    """Wait for commands; if we are interrupted, end them. Raises: StepFailedError with the line of a stage that failed."""
    statuses = processes.statuses(started)
    if any(statuses):
        raise failure(layout, what, statuses)


def failure(layout: Layout, what: str, statuses: Sequence[int] = ()) -> StepFailedError:
    """The error of a stage that failed, by its own line where it left one; or by the signal that ended it, which leaves none."""
    reported = processes.reported_failure(layout)
    if reported:
        return reported
    obstacle = _obstacle(layout)
    if obstacle:
        return StepFailedError(f"{what} failed because {obstacle}; fix that and retry: no data was lost")
    fatal = [signal.Signals(-status).name for status in statuses if -status in CRASHES]
    if fatal:
        return StepFailedError(
            f"{what} was ended by {fatal[0]}: by a library's fault or for want of memory, not by a check. Retry: no data was "
            "lost; if it happens again, try the other versions of constraints.txt and unset pins (docs/exactness.md, Variables)"
        )
    return StepFailedError(f"{what} failed; its output above says why. Fix that and retry: no data was lost")


def _obstacle(layout: Layout) -> str | None:
    """A folder that cannot be written, and why: DVC does not say it where it must be quiet, nor where nobody reads its output."""
    for name, folder in (("DVC's cache", cache(layout).root), ("the project's folder", layout.root)):
        try:
            if folder.exists():
                with tempfile.TemporaryFile(dir=folder) as probe:
                    probe.write(b"\0" * 2**16)
        except OSError as error:
            return "the disk is full" if error.errno == errno.ENOSPC else f"{name} cannot be written ({error.strerror})"
    return None


def mend_rwlock(layout: Layout) -> None:
    """Delete DVC's record of who reads and writes if a killed DVC left it empty or half: DVC refuses everything then.

    It is written in place, so what cannot be read is read once more before it goes. Entries of dead processes DVC drops itself.
    """
    path = layout.root / ".dvc" / "tmp" / "rwlock"
    for last in (False, True):
        try:
            json.loads(path.read_bytes())
        except FileNotFoundError:
            return
        except ValueError:
            if last:
                path.unlink(missing_ok=True)
            else:
                time.sleep(0.2)
        else:
            return


def run(layout: Layout, *arguments: str) -> None:
    """A dvc command whose output goes to people (standard error). Raises: StepFailedError."""
    finish([_start(layout, "dvc", arguments)], layout, f"dvc {arguments[0]}")


def _start(layout: Layout, module: str, arguments: Sequence[str]) -> processes.Running:
    """A copy of a process that has imported DVC, where there is one, else a fresh process."""
    processes.clear_report(layout)
    mend_rwlock(layout)
    copy = forks.start(layout, module, arguments, sys.stderr.fileno())
    return copy or processes.start([sys.executable, "-m", module, *arguments], layout, stdout=sys.stderr)


def ask(layout: Layout, *arguments: str, module: str = "dvc") -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a dvc command. What it says may name an image: it goes to no log."""
    mend_rwlock(layout)
    done = forks.ask(layout, module, arguments)
    if done:
        return done.returncode, done.stdout.decode(), done.stderr.decode()
    return processes.output_of([sys.executable, "-m", module, *arguments], layout)


def _by_file(layout: Layout, names: Sequence[str]) -> dict[str, list[str]]:
    """Plain names of stages by the pipeline file that holds them."""
    slots = load_params(layout.params).slots
    by_file: dict[str, list[str]] = {}
    for name in names:
        by_file.setdefault(file_of(name, slots), []).append(name)
    return by_file


def targets(layout: Layout, names: Sequence[str]) -> list[str]:
    """Stages as DVC addresses them: `tune/03/dvc.yaml:tune@c123` where a slot does not lie in dvc.yaml."""
    by_file = _by_file(layout, names)
    return [name if file == ROOT_FILE else f"{file}:{name}" for file, stages in by_file.items() for name in stages]


def _all_stages(layout: Layout, file: str) -> set[str]:
    """Plain names of all stages of a pipeline file."""
    params = load_params(layout.params)
    stages = yaml.safe_load((layout.root / file).read_text(encoding="utf-8"))["stages"]
    return set(names_of(stages, lists_of(params.parts, params.slots)))


def commit(layout: Layout, names: Sequence[str]) -> None:
    """Record stages that were run outside DVC. It looks at no input: that is the caller's business.

    `record` leaves what `dvc commit` leaves, in a fifth of the time. Where it cannot, DVC does it itself.

    DVC reads and writes a file's whole lock for each target, so where all stages of a file were run, the file is the target.
    Never otherwise: what was not run must stay stale if it is.
    """
    chosen: list[str] = []
    for file, stages in _by_file(layout, names).items():
        chosen += [file] if _all_stages(layout, file) <= set(stages) else targets(layout, stages)
    (code,) = processes.statuses([_start(layout, RECORD, chosen)])
    if code < 0:  # killed, as `dvc commit` may be
        raise failure(layout, "the recording of the stages")
    if code:
        say("the stages could not be recorded at once; `dvc commit` does it, which takes longer")
        run(layout, "commit", "--force", *chosen)


def status(layout: Layout, whole: bool = False) -> dict[str, Any]:
    """What is stale, by the plain names of stages; empty if nothing. Raises: ProjectError if DVC cannot tell.

    DVC is asked about those stages alone of which something changed since it found them up to date (`flows/dvc/unchanged.py`).

    Args: whole: ask about every stage, whatever is remembered.
    """
    return status_and_unchanged(layout, whole)[0]


def status_and_unchanged(layout: Layout, whole: bool = False) -> tuple[dict[str, Any], int]:
    """As `status`; and of how many stages DVC was not asked, because nothing of them changed."""
    now = unchanged.take(layout)  # before DVC is asked: what changes meanwhile is another one next time
    known = unchanged.known(layout, now) if now and not whole else None
    chosen = [address for address in now.stages if address not in known] if now and known else []
    stale = {} if known and not chosen else _ask_in_half_of_the_time(layout, chosen)
    if stale is None:
        known, stale = None, _ask_dvc(layout)
    if now:
        unchanged.remember(layout, now, stale)
    return {plain_name(target): reasons for target, reasons in stale.items()}, len(known or ())


def _ask_in_half_of_the_time(layout: Layout, chosen: Sequence[str]) -> dict[str, Any] | None:
    """What DVC's classes say of stages, by their addresses; of all if none are chosen. None where `dvc status` must be asked."""
    code, output, _ = ask(layout, *chosen, module=STATUS)
    return None if code else _parsed(output)


def _ask_dvc(layout: Layout) -> dict[str, Any]:
    code, output, complaint = ask(layout, "status", "--json")
    if code:
        # What DVC says may name a path, and this line may be stored for good: it goes to the terminal alone.
        say("\n".join(line for line in complaint.splitlines() if line.startswith("ERROR")) or "dvc gave no reason")
        raise ProjectError("`dvc status` failed; its error is printed above (run `dvc status` to see it again). Fix it and retry")
    return _parsed(output)


def _parsed(output: str) -> dict[str, Any]:
    try:
        stale: dict[str, Any] = json.loads(output)
    except json.JSONDecodeError as error:
        raise ProjectError(
            "`dvc status --json` did not print valid JSON; check that this folder is a DVC project, then retry"
        ) from error
    return stale


def require_built(layout: Layout) -> None:
    """Raise ProjectError if nothing was built."""
    if not layout.lock.exists():
        raise ProjectError("the pipeline has not been built yet (dvc.lock is missing); run `dvc repro` and retry")


def require_current(layout: Layout, whole: bool = False) -> None:
    """Raise ProjectError unless everything that the pipeline makes is whole and up to date. Args: whole: as `status` has it."""
    require_built(layout)
    check_files(layout.root, load_params(layout.params).slots)
    read_outs(layout.lock)  # DVC says nothing of use about an empty lock
    stale = status(layout, whole=whole)
    if stale:
        names = ", ".join(sorted(stale)[:4]) + (" …" if len(stale) > 4 else "")
        raise ProjectError(f"the pipeline is not up to date: {len(stale)} stages are stale ({names}); run `dvc repro` and retry")
