"""DVC as a command: a subprocess with its own process group and an explicit folder.

DVC's Python API is internal and unsafe in threads; killing dvc alone would leave a stage's process writing.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from lmeraser.core import determinism
from lmeraser.core.errors import REPORT_VARIABLE, ProjectError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params
from lmeraser.core.progress import say
from lmeraser.pipeline.files import ROOT_FILE, check_files, file_of, plain_name
from lmeraser.pipeline.locks import read_outs

# Descriptors of the locks that this process holds. What it starts inherits them, so that after a kill nobody else changes the
# project while an orphan still writes.
HELD: list[int] = []


def surroundings(layout: Layout) -> dict[str, str]:
    """The environment of every command: this interpreter first on PATH, no analytics, a place for a stage's error line.

    Variables that reach bits are settled already: a command that plain `dvc` starts finds them as a stage would make them.
    """
    here = str(Path(sys.executable).parent)
    return determinism.settled(os.environ) | {
        "PATH": os.pathsep.join((here, os.environ.get("PATH", ""))),
        "DVC_NO_ANALYTICS": "1",
        # Beside the project: what DVC remembers there goes when the project goes, and copies do not share it.
        "DVC_SITE_CACHE_DIR": str(layout.root / ".dvc" / "tmp" / "site"),
        "DO_NOT_TRACK": "1",
        REPORT_VARIABLE: str(layout.error_report),
    }


def start(
    command: Sequence[str], layout: Layout, extra: Mapping[str, str] = MappingProxyType({}), **pipes: Any
) -> "subprocess.Popen[str]":
    """Args: extra: variables of this command alone."""
    return subprocess.Popen(
        list(command),
        cwd=layout.root,
        env=surroundings(layout) | dict(extra),
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        pass_fds=tuple(HELD),
        **pipes,
    )


def stop(process: "subprocess.Popen[str]") -> None:
    """End a command and everything that it started."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    except ProcessLookupError:
        process.wait()


def finish(processes: Sequence["subprocess.Popen[str]"], layout: Layout, what: str) -> None:
    """Wait for commands; if one fails or we are interrupted, end the others. Raises: StepFailedError with the stage's line."""
    try:
        codes = [process.wait() for process in processes]
    except BaseException:
        for process in processes:
            stop(process)
        raise
    if any(codes):
        raise failure(layout, what)


def failure(layout: Layout, what: str) -> StepFailedError:
    """The error of a stage that failed, by its own line where it left one."""
    report = layout.error_report
    if report.exists():
        told = json.loads(report.read_bytes())
        report.unlink()
        return StepFailedError(told["line"], told["exit_code"])
    obstacle = _obstacle(layout)
    if obstacle:
        return StepFailedError(f"{what} failed: {obstacle}; mend that and retry: nothing is lost")
    return StepFailedError(f"{what} failed; its own output above says why. Mend that and retry: nothing is lost")


def _obstacle(layout: Layout) -> str | None:
    """A folder that cannot be written, and why: DVC does not say it where it must be quiet, nor where nobody reads its output."""
    from flows.dvc.config import cache

    for name, folder in (("DVC's cache", cache(layout).root), ("the project's folder", layout.root)):
        try:
            if folder.exists():
                with tempfile.TemporaryFile(dir=folder) as probe:
                    probe.write(b"\0" * 2**16)
        except OSError as error:
            return "the disk is full" if error.errno == errno.ENOSPC else f"{name} cannot be written ({error.strerror})"
    return None


def clear_report(layout: Layout) -> None:
    """Forget an earlier stage's error line."""
    layout.private_state.mkdir(exist_ok=True, mode=0o700)
    layout.error_report.unlink(missing_ok=True)


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
    clear_report(layout)
    mend_rwlock(layout)
    process = start([sys.executable, "-m", "dvc", *arguments], layout, stdout=sys.stderr)
    finish([process], layout, f"dvc {arguments[0]}")


def _by_file(layout: Layout, names: Sequence[str]) -> dict[str, list[str]]:
    """Plain names of stages by the pipeline file that holds them."""
    slots = load_params(layout.params).slots
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(file_of(name, slots), []).append(name)
    return found


def targets(layout: Layout, names: Sequence[str]) -> list[str]:
    """Stages as DVC addresses them: `tune/03/dvc.yaml:tune@c123` where a slot does not lie in dvc.yaml."""
    return [name if file == ROOT_FILE else f"{file}:{name}" for file, held in _by_file(layout, names).items() for name in held]


def _all_stages(layout: Layout, file: str) -> set[str]:
    """Plain names of all stages of a pipeline file."""
    stages = yaml.safe_load((layout.root / file).read_text(encoding="utf-8"))["stages"]
    params = load_params(layout.params)
    lists = {"${parts}": params.parts, "${slots}": params.slots}
    found: set[str] = set()
    for name, stage in stages.items():
        items = stage.get("foreach")
        found |= {name} if items is None else {f"{name}@{item}" for item in (lists[items] if isinstance(items, str) else items)}
    return found


def commit(layout: Layout, names: Sequence[str]) -> None:
    """Record stages that were run outside DVC. It looks at no input: that is the caller's business.

    DVC reads and writes a file's whole lock for each target, so where all stages of a file were run, the file is the target.
    Never otherwise: what was not run must stay stale if it is.
    """
    chosen: list[str] = []
    for file, held in _by_file(layout, names).items():
        chosen += [file] if _all_stages(layout, file) <= set(held) else targets(layout, held)
    run(layout, "commit", "--force", *chosen)


def status(layout: Layout) -> dict[str, Any]:
    """What is stale, by the plain names of stages; empty if nothing. Raises: ProjectError if DVC cannot tell."""
    mend_rwlock(layout)
    process = start(
        [sys.executable, "-m", "dvc", "status", "--json"],
        layout,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, complaint = process.communicate()
    if process.returncode:
        # What DVC says may name a path, and this line may be stored for good: it goes to the terminal alone.
        say("\n".join(line for line in complaint.splitlines() if line.startswith("ERROR")) or "dvc gave no reason")
        raise ProjectError("dvc status failed (its own line is above; `dvc status` shows it again); mend the project and retry")
    try:
        stale: dict[str, Any] = json.loads(output)
    except json.JSONDecodeError as error:
        raise ProjectError("dvc status gave no JSON; is this a DVC project?") from error
    return {plain_name(target): reasons for target, reasons in stale.items()}


def require_built(layout: Layout) -> None:
    """Raise ProjectError if nothing was built."""
    if not layout.lock.exists():
        raise ProjectError("nothing was built yet (dvc.lock is missing); run `dvc repro` and retry")


def require_current(layout: Layout) -> None:
    """Raise ProjectError unless everything that the pipeline makes is whole and up to date."""
    require_built(layout)
    check_files(layout.root, load_params(layout.params).slots)
    read_outs(layout.lock)  # DVC says nothing of use about an empty lock
    stale = status(layout)
    if stale:
        names = ", ".join(sorted(stale)[:4]) + (" …" if len(stale) > 4 else "")
        raise ProjectError(f"the pipeline is not up to date: {len(stale)} stages are stale ({names}); run `dvc repro` first")
