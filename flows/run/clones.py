"""Tune clusters in clones that share a DVC remote: the coordinator publishes what is stale, a clone trains it, DVC brings it.

The clone is ephemeral: it pulls what one cluster needs, trains, pushes result and run-cache, and wipes everything. A clone that
kept what was erased later would bring it back with its next push. The job itself (the locks and the erased list) lies in the
remote below `lmeraser-jobs/` while it is open.
"""

import json
import shutil
import time
from collections.abc import Sequence

from flows import git
from flows.dvc import command as dvc
from flows.dvc.config import read_config, remotes
from flows.project import Project, workspace
from lmeraser.clusters.files import load_members
from lmeraser.core.code import code_digest
from lmeraser.core.digest import canonical_json, sha256_of_file
from lmeraser.core.errors import ProjectError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.pipeline.files import check_files, locks, stage_names
from lmeraser.stores.base import Store

FROZEN = (
    "artifacts/pretrain/backbone.safetensors",
    "artifacts/skeleton/skeleton.safetensors",
    "artifacts/recipe/recipe.json",
    "artifacts/validate/passed.json",
)


def _shared(project: Project) -> Store:
    """The default remote, which `dvc push` and `dvc pull` use too. Raises: ProjectError if there is none."""
    config = read_config(project.layout)
    name = config.get("core", {}).get("remote", "").lower()
    stores = [store for store in remotes(project.layout, config) if store.name == f"remote {name}"]
    if not stores:
        raise ProjectError(
            "service.fan_out is `clones`, but DVC has no default remote; run `dvc remote add -d NAME URL` and retry"
        )
    return stores[0]


def _key(batch_id: str) -> str:
    return f"lmeraser-jobs/{batch_id}.json"


def publish(project: Project, batch_id: str) -> None:
    """Push what clones read, then the job. Everything before `tune` is recorded in its lock already."""
    layout = project.layout
    dvc.run(layout, "push", "--quiet", "split", "pretrain", "skeleton", "recipe", "cluster", "validate")
    job = {
        "code": code_digest(layout.root),
        "params": sha256_of_file(layout.params),
        "locks": {path.relative_to(layout.root).as_posix(): path.read_text(encoding="utf-8") for path in locks(layout.root)},
        "erased": layout.erased.read_text(encoding="utf-8"),
    }
    _shared(project).write(_key(batch_id), canonical_json(job))


def withdraw(project: Project, batch_id: str) -> None:
    _shared(project).delete([_key(batch_id)])


def take_results(project: Project, slots: Sequence[str]) -> None:
    """Bring the trained slots here: DVC finds them in the remote's run-cache and runs nothing."""
    targets = dvc.targets(project.layout, stage_names("tune", slots))
    dvc.run(project.layout, "repro", "--quiet", "--pull", "--single-item", *targets)


def work_in_clone(project: Project, batch_id: str, slot: str) -> float:
    """Train one slot in this clone, push the result, and leave nothing behind. Returns seconds of training."""
    layout = project.layout
    with workspace(project):
        _require_ephemeral(layout)
        jobs = _shared(project).read([_key(batch_id)])
        if _key(batch_id) not in jobs:
            raise StepFailedError("the job is no longer in the remote because its coordinator gave up; no data was lost")
        job = json.loads(jobs[_key(batch_id)])
        if (job["code"], job["params"]) != (code_digest(layout.root), sha256_of_file(layout.params)):
            raise ProjectError("this clone's code or params.yaml differs from the coordinator's; run `git pull` here and retry")
        check_files(layout.root, project.params.slots)
        try:
            for lock in locks(layout.root):
                lock.write_text(job["locks"][lock.relative_to(layout.root).as_posix()], encoding="utf-8")
            layout.erased.write_text(job["erased"], encoding="utf-8")
            _pull(layout, slot)
            start = time.monotonic()
            target = dvc.targets(layout, stage_names("tune", [slot]))
            dvc.run(layout, "repro", "--quiet", "--single-item", *target)
            seconds = time.monotonic() - start
            dvc.run(layout, "push", "--quiet", "--run-cache", *target)
        finally:
            wipe(layout)
    return seconds


def _require_ephemeral(layout: Layout) -> None:
    """Raise ProjectError if this folder holds work of its own, which `wipe` would delete; else clear what a killed try left."""
    marker = layout.clone_marker
    if not marker.exists() and (layout.artifacts.exists() or layout.ledger.exists()):
        raise ProjectError("this folder holds a built project; start the worker in a fresh clone of its own")
    layout.private_state.mkdir(exist_ok=True, mode=0o700)
    marker.touch()
    wipe(layout)


def _pull(layout: Layout, slot: str) -> None:
    members = layout.members(slot)
    dvc.run(layout, "pull", "--quiet", str(members.relative_to(layout.root)), *FROZEN)
    parts = sorted({layout.part(member.part) for member in load_members(members)})
    if parts:
        dvc.run(layout, "pull", "--quiet", *(str(part.relative_to(layout.root)) for part in parts))


def wipe(layout: Layout) -> None:
    """Delete everything that was pulled or made, and what DVC remembers of it."""
    for folder in (layout.artifacts, layout.root / ".dvc" / "cache", layout.root / ".dvc" / "tmp"):
        shutil.rmtree(folder, ignore_errors=True)
    locks_here = locks(layout.root)
    for lock in locks_here:
        lock.unlink(missing_ok=True)
    # As git has them, so that the clone can follow the code; the locks may not be in git.
    for name in (*(lock.relative_to(layout.root).as_posix() for lock in locks_here), "data/erased.json"):
        git.restore(layout.root, name)
