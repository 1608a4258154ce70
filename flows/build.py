"""Build and update: the same bytes as plain `dvc repro`, in few warm processes.

`dvc repro` starts one process a stage, and most of a small stage's time is the import of torch. Here stages run one after the
other in one process (`stages/chain.py`), clusters in as many processes as there are cores, and then one `dvc commit` records
them. `dvc commit` does not check that the inputs are those that were used, so their digests are compared before and after;
whoever calls holds the workspace's lock.
"""

import os
import shutil
import sys
from collections.abc import Sequence

from flows import dvc
from lmeraser.core.clustering import load_sizes
from lmeraser.core.digest import sha256, sha256_of_file
from lmeraser.core.errors import StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.core.progress import say

CODE = ("lmeraser/core", "lmeraser/learn", "lmeraser/sources", "lmeraser/erase", "stages")


def processes() -> int:
    """How many processes train at once: one a core, as each uses one thread."""
    return max(1, len(os.sched_getaffinity(0)))


def _inputs(layout: Layout) -> str:
    """Digest of what every stage reads and none writes: params, code, and who is erased."""
    folders = [layout.root / name for name in CODE]
    code = sorted(path for folder in folders for path in folder.rglob("*.py"))
    return sha256("".join(sha256_of_file(path) for path in [layout.params, layout.erased, *code]).encode())


def _run(layout: Layout, shares: Sequence[Sequence[str]]) -> None:
    """Run chains of stages side by side. Raises: StepFailedError with the line of the one that failed."""
    dvc.clear_report(layout)
    running = [dvc.start([sys.executable, "-m", "stages.chain", *share], layout, stdout=sys.stderr) for share in shares if share]
    dvc.finish(running, layout, "a stage")


def _shares(slots: Sequence[str], layout: Layout) -> list[list[str]]:
    """Divide slots among processes, the largest cluster first to the least loaded."""
    records = {size["slot"]: size["records"] for size in load_sizes(layout.clusters)}
    shares: list[list[str]] = [[] for _ in range(processes())]
    load = [0] * len(shares)
    for slot in sorted(slots, key=lambda slot: (-records.get(slot, 0), slot)):
        least = load.index(min(load))
        shares[least].append(f"tune@{slot}")
        load[least] += records.get(slot, 0)
    return shares


def _run_stages(layout: Layout, before: Sequence[str], slots: Sequence[str], after: Sequence[str]) -> None:
    """Run `before`, then the slots side by side, then `after`, and record all of them at once."""
    inputs = _inputs(layout)
    for draft in layout.artifacts.rglob(".writing-*"):  # left by a killed process; `dvc commit` would record it
        draft.unlink()
    if len(slots) <= processes():
        _run(layout, [[*before, *(f"tune@{slot}" for slot in slots), *after]])
    else:
        _run(layout, [before])
        _run(layout, _shares(slots, layout))
        _run(layout, [after])
    if _inputs(layout) != inputs:
        raise StepFailedError("params, code or the erased list changed during the run; retry with nobody else writing here")
    dvc.run(layout, "commit", "--quiet", "--force", *before, *(f"tune@{slot}" for slot in slots), *after)


def _embeds(params: Params) -> list[str]:
    return [f"embed@{part}" for part in params.parts]


def build(layout: Layout) -> None:
    """Bring everything that the pipeline makes up to date. Raises: StepFailedError; what was finished stays finished."""
    params = load_params(layout.params)
    if not layout.lock.exists():
        shutil.rmtree(layout.artifacts, ignore_errors=True)  # of no known origin
        before = ["split", "pretrain", "skeleton", *_embeds(params), "cluster", "validate"]
        _run_stages(layout, before, params.slots, ["head", "evaluate"])
    dvc.run(layout, "repro", "--quiet")
    say("build: everything is up to date")


def update(layout: Layout, parts: Sequence[str], slots: Sequence[str]) -> None:
    """After an erasure: run what it touched, then `dvc repro`, which finds nothing left unless the plan was an estimate."""
    before = ["split", *(f"embed@{part}" for part in parts), "cluster", "validate"]
    _run_stages(layout, before, slots, ["head", "evaluate"])
    dvc.run(layout, "repro", "--quiet")
