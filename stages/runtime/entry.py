"""How every stage begins and ends: find the project, read the params, and turn an error into one line and an exit status."""

import errno
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lmeraser.core import determinism
from lmeraser.core.digest import readable_json
from lmeraser.core.errors import REPORT_VARIABLE, LmeraserError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.own_code import require_own_code
from lmeraser.core.params import Params, load_params
from lmeraser.core.private import close_private
from lmeraser.core.progress import say
from lmeraser.pipeline.files import check_files

Stage = Callable[[Layout, Params, list[str]], None]


def refuse(line: str, exit_code: int) -> None:
    """End the process with one line: in the file that a flow asked for (it will show it), else on standard error."""
    report = os.environ.get(REPORT_VARIABLE)
    if report:
        write_atomically(Path(report), readable_json({"line": line, "exit_code": exit_code}), mode=0o600)
    else:
        say(f"error: {line}")
    sys.exit(exit_code)


@contextmanager
def writing(layout: Layout) -> Iterator[None]:
    """Tell whoever takes the project over after a kill that a stage still writes: it waits until this one ends."""
    close_private(layout)
    with layout.stage_lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield


def disk_is_full(error: OSError) -> str | None:
    """The line to show if an error says that there is no space, or none that this user may have; else nothing."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return None
    return (
        f"a stage cannot write its files: the disk is full, or a limit is reached ({os.strerror(error.errno)}); free some space, "
        "or raise the limit, and retry: `dvc checkout` gives the last whole state back"
    )


def read_project(layout: Layout) -> Params:
    """The params, after checking that the pipeline files hold their slots: plain `dvc repro` meets this check here."""
    params = load_params(layout.params)
    check_files(layout.root, params.slots)
    return params


def enter(stage: Stage) -> None:
    """Run a stage in the project of the working folder; its arguments are the command line's."""
    try:
        determinism.require()
        layout = Layout.find(Path.cwd())
        require_own_code(layout.root)
        with writing(layout):
            stage(layout, read_project(layout), sys.argv[1:])
    except LmeraserError as error:
        refuse(str(error), error.exit_code)
    except OSError as error:
        line = disk_is_full(error)
        if line is None:
            raise
        refuse(line, 1)
