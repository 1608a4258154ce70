"""Stages that are handed out to workers of this folder: which job is open, and that nobody works for one that is over.

A run that a coordinator scheduled before it died may start hours later, in the middle of an erasure. So a worker holds the stage
lock while it looks whether its job is open and while it works; and whoever takes the project over closes the job first, then
waits for that lock (`workspace` in `flows/project.py`).
"""

import fcntl
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flows import processes
from flows.run.waves import HANDED_OUT
from lmeraser.core.errors import RequestError, StepFailedError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.pipeline.files import StageName

BUILD = "build"  # names a build among batches, which have ids
JOB_ID = r"^[0-9a-z-]{1,64}\.[0-9a-f]{8}$"  # a name, and a token that no other try has


def new_job(name: str) -> str:
    """The id of a job. Args: name: of the batch, or BUILD."""
    return f"{name}.{secrets.token_hex(4)}"


def name_of(job_id: str) -> str:
    return job_id.partition(".")[0]


def check_job(job_id: str, names: Sequence[str], params: Params) -> None:
    """Raise RequestError unless these are stages that a worker may run. A deployment need not enforce its patterns."""
    if not re.fullmatch(JOB_ID, job_id):
        raise RequestError("the job id is not valid; expected a batch id or `build`, a dot and 8 hexadecimal digits")
    items = dict(zip(HANDED_OUT, (params.parts, params.slots), strict=True))
    for stage in map(StageName.parse, names):
        if stage.item not in items.get(stage.kind, ()):
            raise RequestError(
                "a stage is not `embed` of a part or `tune` of a slot of params.yaml; give coordinator and worker the same code "
                "and params, then retry"
            )


@contextmanager
def open_job(layout: Layout, job_id: str) -> Iterator[None]:
    """Let workers of this folder run stages of a job until the end of the block."""
    write_atomically(layout.handed_out, job_id.encode(), mode=0o600)
    try:
        yield
    finally:
        layout.handed_out.unlink(missing_ok=True)


@contextmanager
def taking_part(layout: Layout, job_id: str) -> Iterator[None]:
    """Work for a job. Raises: StepFailedError if it is over."""
    layout.private_state.mkdir(exist_ok=True, mode=0o700)
    with layout.stage_lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        is_open = layout.handed_out.exists() and layout.handed_out.read_text(encoding="utf-8") == job_id
        if not is_open:
            raise StepFailedError("the job is over: its coordinator ended or gave up; nothing was run, and no data was lost")
        processes.INHERITED_LOCKS.append(handle.fileno())  # a stage whose worker was killed still counts
        try:
            yield
        finally:
            processes.INHERITED_LOCKS.remove(handle.fileno())
