"""What killed or finished work leaves outside the stores: DVC's memory of files, experiments, copies of the project, old outs,
features that `evaluate` remembers of another model or of other people."""

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from flows.dvc import config as remotes
from flows.purge import prefect_events as prefect_storage
from flows.purge.lineage import current_stages
from lmeraser.core.errors import LmeraserError, StepFailedError
from lmeraser.core.files import DRAFT
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params
from lmeraser.erase.taint import FOLDER, Manifests, covers
from lmeraser.serve.remembered import superseded
from lmeraser.stores.base import undeletable

AUDIT = "lmeraser-audit-"
OWNER = "owner.json"  # in an audit's folder: its project; locked while its process lives
DEMO = ".demo"
MARKS: list[IO[str]] = []  # held open for as long as this process lives
OLD_S = 3600.0  # s; an audit's copy, or a draft, that is older is one of a killed process


def remove(folder: Path, name: str) -> int:
    """Delete a file or a folder; returns how many files it held. Raises: StepFailedError."""
    if folder.is_symlink() or folder.is_file():
        try:
            folder.unlink(missing_ok=True)
        except OSError as error:
            raise undeletable(name, 1, error.strerror or "no reason given") from error
        return 1
    if not folder.exists():
        return 0
    files = sum(len(names) for _, _, names in os.walk(folder))
    failed: list[OSError] = []

    def note(_: object, __: str, problem: BaseException | tuple[object, BaseException, object]) -> None:
        error = problem[1] if isinstance(problem, tuple) else problem
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            failed.append(error)

    shutil.rmtree(folder, onerror=note)
    if failed:
        raise undeletable(name, len(failed), failed[0].strerror or "no reason given")
    return files


def audits() -> list[Path]:
    """Audits' copies of this user in the temporary folder."""
    copies = []
    for path in Path(tempfile.gettempdir()).glob(f"{AUDIT}*"):
        try:
            if path.lstat().st_uid == os.getuid() and path.is_dir() and not path.is_symlink():
                copies.append(path)
        except FileNotFoundError:
            continue
    return sorted(copies)


def _in_use(folder: Path) -> bool | None:
    """Whether a process works in a folder; None where the system does not tell (no /proc)."""
    processes = Path("/proc")
    if not (processes / "self" / "cwd").exists():
        return None
    for process in processes.iterdir():
        try:
            here = process.name.isdigit() and (process / "cwd").readlink().is_relative_to(folder)
        except OSError:
            continue
        if here:
            return True
    return False


def mark_audit(folder: Path, layout: Layout) -> None:
    """Say in an audit's temporary folder whose it is, and lock that file for as long as this process lives: a lock ends with its
    process, while a process's number is given to another one."""
    handle = (folder / OWNER).open("w", encoding="utf-8")
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    handle.write(json.dumps({"root": str(layout.root)}))
    handle.flush()
    MARKS.append(handle)


def _owner(folder: Path) -> tuple[str, bool]:
    """The project that an audit's copy is of, and whether its process lives. Raises: OSError, ValueError, KeyError, TypeError."""
    with (folder / OWNER).open(encoding="utf-8") as handle:
        root = str(json.load(handle)["root"])
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return root, True
    return root, False


def abandoned_audits(layout: Layout) -> list[Path]:
    """Copies of killed audits: this project's whose process is gone; unmarked ones that are an hour old and in nobody's use."""
    abandoned = []
    for path in audits():
        try:
            root, lives = _owner(path)
            left = root == str(layout.root) and not lives
        except (OSError, ValueError, KeyError, TypeError):
            try:
                left = time.time() - path.stat().st_mtime > OLD_S and not _in_use(path)
            except FileNotFoundError:
                continue
        if left:
            abandoned.append(path)
    return abandoned


def clear_audits(layout: Layout) -> int:
    return sum(remove(path, "temporary files") for path in abandoned_audits(layout))


def clear_demo(layout: Layout) -> int:
    """The demo is a whole copy of the project. Raises: StepFailedError if it runs."""
    folder = layout.root / DEMO
    lock = Layout(folder).workspace_lock
    if lock.exists():
        with lock.open("r+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StepFailedError(
                    f"{DEMO} is a copy of this project and runs now; wait for it, then `lmeraser resume`"
                ) from error
            return remove(folder, DEMO)
    return remove(folder, DEMO)


def clear_artifacts(layout: Layout, manifests: Manifests) -> int:
    """Files below artifacts/ that no current lock names: outs of removed slots, drafts of killed stages, and of metrics."""
    outs = {path: md5 for stage in current_stages(layout) for path, md5 in stage.outs}
    named = {path for path, md5 in outs.items() if not md5.endswith(FOLDER)}
    named |= {f"{path}/{member}" for path, md5 in outs.items() if md5 in manifests for member in manifests[md5]}
    unknown = [path for path, md5 in outs.items() if md5.endswith(FOLDER) and md5 not in manifests]
    surplus = list(layout.metrics.rglob(f"{DRAFT}*"))  # of a killed `evaluate`: the metrics of a state with who left
    for path in layout.artifacts.rglob("*"):
        name = path.relative_to(layout.root).as_posix()
        if path.is_dir() and not path.is_symlink():
            continue
        if path.name != ".gitignore" and name not in named and not any(covers(folder, name) for folder in unknown):
            surplus.append(path)
    deleted = sum(remove(path, "artifacts") for path in surplus)
    for folder in sorted((path for path in layout.artifacts.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    return deleted


def clear_remembered(layout: Layout) -> int:
    """What `evaluate` remembers of another model or of other test records: it may not have run since (the run-cache, a kill)."""
    if not os.path.lexists(layout.remembered):
        return 0
    return sum(remove(path, "remembered features") for path in superseded(layout, load_params(layout.params)))


def clear_questions(layout: Layout) -> int:
    """What killed plans asked the network, of single images and of near copies: it names records by their ids. Older versions
    left drafts of it under names that tell nothing; what somebody writes now is none."""
    asked = [path for pattern in (layout.moves("*"), layout.near("*")) for path in layout.private_state.glob(pattern.name)]
    drafts = [path for path in layout.private_state.glob(f"{DRAFT}*") if _is_old(path)]
    return sum(remove(path, "questions") for path in (*asked, *drafts))


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_mtime > OLD_S
    except FileNotFoundError:
        return False


def clear(layout: Layout, manifests: Manifests) -> tuple[dict[str, int], list[LmeraserError]]:
    """Delete all of it. Returns: files deleted, by store; and what could not be done."""
    tasks: dict[str, Callable[[], int]] = {
        "dvc site": lambda: sum(remove(folder, "dvc site") for folder in remotes.site_folders(layout)),
        "dvc experiments": lambda: remove(layout.root / ".dvc" / "tmp" / "exps", "dvc experiments"),
        "plots": lambda: remove(layout.root / "dvc_plots", "plots"),
        "audits": lambda: clear_audits(layout),
        "prefect": lambda: prefect_storage.clear(layout),
        "demo": lambda: clear_demo(layout),
        "artifacts": lambda: clear_artifacts(layout, manifests),
        "remembered": lambda: clear_remembered(layout),
        "questions": lambda: clear_questions(layout),
    }
    done, failures = {}, []
    for name, task in tasks.items():
        try:
            done[name] = task()
        except LmeraserError as error:
            failures.append(error)
    return done, failures
