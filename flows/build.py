"""Build: the same bytes as one plain `dvc repro`, faster: stale parts and slots in few warm processes.

One process imports torch once for many slots, then one `dvc commit` writes the lock once. `dvc commit` does not check that the
inputs are those that were trained on, so their digests are compared before and after.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from flows import dvc
from lmeraser.core.digest import sha256, sha256_of_file
from lmeraser.core.errors import StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params
from lmeraser.core.progress import say

CODE = ("lmeraser/core", "lmeraser/learn", "stages")


def processes() -> int:
    """How many processes train at once: one a core, as each uses one thread."""
    return max(1, len(os.sched_getaffinity(0)))


def _digest(paths: Sequence[Path]) -> str:
    files = sorted(file for path in paths for file in ([path] if path.is_file() else path.rglob("*")))
    return sha256("".join(sha256_of_file(file) for file in files if file.is_file() and file.suffix != ".pyc").encode())


def _run_stale(layout: Layout, stage: str, names: Sequence[str], inputs: Sequence[Path]) -> None:
    """Run the stale ones of a foreach stage in warm processes and record them with one commit."""
    targets = [f"{stage}@{name}" for name in names]
    stale = dvc.status(layout, *targets)
    work = [name for name in names if f"{stage}@{name}" in stale]
    if not work:
        return
    watched = [layout.params, *(layout.root / code for code in CODE), *inputs]
    before = _digest(watched)
    layout.private_state.mkdir(exist_ok=True, mode=0o700)
    (layout.private_state / "error.json").unlink(missing_ok=True)
    shares = [share for share in (work[place :: processes()] for place in range(processes())) if share]
    running = [dvc.start([sys.executable, "-m", f"stages.{stage}", *share], layout, stdout=sys.stderr) for share in shares]
    dvc.finish(running, layout, stage)
    if _digest(watched) != before:
        raise StepFailedError(f"{stage}: an input changed while it was being read; retry with nobody else writing here")
    dvc.run(layout, "commit", "--quiet", "--force", *(f"{stage}@{name}" for name in work))


def build(layout: Layout) -> None:
    """Bring everything that the pipeline makes up to date. Raises: StepFailedError; what was finished stays finished."""
    params = load_params(layout.params)
    dvc.run(layout, "repro", "--quiet", "skeleton")
    _run_stale(layout, "embed", params.parts, [layout.private, layout.backbone, layout.skeleton])
    dvc.run(layout, "repro", "--quiet", "validate")
    members = [layout.members(slot) for slot in params.slots]
    _run_stale(layout, "tune", params.slots, [*members, layout.backbone, layout.skeleton])
    dvc.run(layout, "repro", "--quiet")
    say("build: everything is up to date")


def update(layout: Layout, stale_slots: int) -> None:
    """After an erasure: `dvc repro` alone where little is stale, warm processes where that saves time."""
    if stale_slots > processes():
        build(layout)
    else:
        dvc.run(layout, "repro", "--quiet")
