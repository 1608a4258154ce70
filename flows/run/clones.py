"""Stages in clones that share a DVC remote: the coordinator publishes what they read, clones run them, DVC brings the results.

The clone is ephemeral: it pulls what its stages need, runs them, pushes result and run-cache, and wipes everything. A clone that
kept what was erased later would bring it back with its next push. The job itself (the locks and the erased list) lies in the
remote below `lmeraser-jobs/` while it is open.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows import git
from flows.dvc import command as dvc
from flows.dvc.config import read_config, remotes
from flows.project import Project, workspace
from flows.run.handout import name_of
from flows.run.warm_client import run_chains
from lmeraser.clusters.files import load_members
from lmeraser.core.code import code_digest
from lmeraser.core.digest import canonical_json, sha256_of_file
from lmeraser.core.errors import ProjectError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.pipeline.files import LOCK, StageName, check_files, file_of, locks
from lmeraser.pipeline.locks import Outs, outs_of, read_files
from lmeraser.stores.base import Store

# What stages of each kind read, by the stages that made it.
READ = {
    "embed": ("split", "pretrain", "skeleton"),
    "tune": ("split", "pretrain", "skeleton", "recipe", "cluster", "validate"),
}


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


def _key(name: str) -> str:
    return f"lmeraser-jobs/{name}.json"


def publish(project: Project, job_id: str, names: Sequence[str]) -> None:
    """Push what stages read, then the job. All that they read is recorded already.

    A job takes the place of an older one of its name: a coordinator that was killed left it.
    """
    layout = project.layout
    kinds = {StageName.parse(name).kind for name in names}
    dvc.run(layout, "push", "--quiet", *dict.fromkeys(stage for kind in sorted(kinds) for stage in READ[kind]))
    there = [path for path in locks(layout.root) if path.exists()]
    job = {
        "id": job_id,
        "code": code_digest(layout.root),
        "params": sha256_of_file(layout.params),
        "locks": {path.relative_to(layout.root).as_posix(): path.read_text(encoding="utf-8") for path in there},
        "erased": layout.erased.read_text(encoding="utf-8"),
    }
    _shared(project).write(_key(name_of(job_id)), canonical_json(job))


def withdraw(project: Project, job_id: str) -> None:
    _shared(project).delete([_key(name_of(job_id))])


def take_results(project: Project, names: Sequence[str]) -> None:
    """Bring what stages made here: DVC finds it in the remote's run-cache, by the digests of what they read, and runs nothing.

    Raises: StepFailedError if a file is not what its run recorded: DVC believes a remote.
    """
    layout = project.layout
    dvc.run(layout, "repro", "--quiet", "--pull", "--single-item", *dvc.targets(layout, names))
    made = _made(project, names)
    recorded = {path: md5 for name in names for path, md5 in made[name].items()}
    files = read_files(layout.root, recorded)
    differing = sorted(path for path, md5 in recorded.items() if files.get(path) != md5)
    if differing:
        raise StepFailedError(
            f"{differing[0]} is not what its worker recorded ({len(differing)} such artifacts): the remote's copy is damaged; "
            "delete it there and in DVC's cache (both name it by the digest in dvc.lock), and retry"
        )


def _made(project: Project, names: Sequence[str]) -> dict[str, Outs]:
    """The outs of each stage of the locks that record these; in a first build others are not there yet."""
    files = {file_of(name, project.params.slots) for name in names}
    there = [(project.layout.root / file).with_name(LOCK) for file in sorted(files)]
    made = [outs_of(lock, lock.relative_to(project.layout.root).as_posix()) for lock in there]
    return {stage: outs for stages in made for stage, outs in stages.items()}


def work_in_clone(project: Project, job_id: str, names: Sequence[str]) -> None:
    """Run stages of a job in this clone, push what they made, and leave nothing behind.

    Raises: StepFailedError if the job is over; ProjectError if this is no clone to work in.
    """
    layout = project.layout
    with workspace(project):
        _require_ephemeral(layout)
        job = _read_job(project, job_id)
        if (job["code"], job["params"]) != (code_digest(layout.root), sha256_of_file(layout.params)):
            raise ProjectError("this clone's code or params.yaml differs from the coordinator's; run `git pull` here and retry")
        check_files(layout.root, project.params.slots)
        try:
            for lock in locks(layout.root):
                text = job["locks"].get(lock.relative_to(layout.root).as_posix())
                if text is None:  # a first build has not recorded it yet
                    lock.unlink(missing_ok=True)
                else:
                    lock.write_text(text, encoding="utf-8")
            layout.erased.write_text(job["erased"], encoding="utf-8")
            _pull(layout, names)
            run_chains(layout, [names])
            dvc.commit(layout, names)
            dvc.run(layout, "push", "--quiet", "--run-cache", *dvc.targets(layout, names))
        finally:
            wipe(layout)


def _read_job(project: Project, job_id: str) -> dict[str, Any]:
    """The job as its coordinator published it. Args: job_id: a name alone asks for no token (as older coordinators published)."""
    key = _key(name_of(job_id))
    jobs = _shared(project).read([key])
    job: dict[str, Any] = json.loads(jobs[key]) if key in jobs else {}
    if not job or ("id" in job and job["id"] != job_id):
        raise StepFailedError("the job is no longer in the remote because its coordinator gave up; no data was lost")
    return job


def _require_ephemeral(layout: Layout) -> None:
    """Raise ProjectError if this folder holds work of its own, which `wipe` would delete; else clear what a killed try left."""
    marker = layout.clone_marker
    if not marker.exists() and (layout.artifacts.exists() or layout.ledger.exists()):
        raise ProjectError("this folder holds a built project; start the worker in a fresh clone of its own")
    layout.private_state.mkdir(exist_ok=True, mode=0o700)
    marker.touch()
    wipe(layout)


def _pull(layout: Layout, names: Sequence[str]) -> None:
    """Pull what stages read: of parts only those that hold a record of theirs."""
    stages = [StageName.parse(name) for name in names]
    slots = [stage.item for stage in stages if stage.kind == "tune"]
    parts = {stage.item for stage in stages if stage.kind == "embed"}
    read = [layout.backbone, layout.skeleton]
    if slots:
        read += [layout.recipe, layout.validation / "passed.json", *map(layout.members, slots)]
    _pull_files(layout, read)
    parts |= {member.part for slot in slots for member in load_members(layout.members(slot))}
    if parts:
        _pull_files(layout, [layout.part(part) for part in sorted(parts)])


def _pull_files(layout: Layout, paths: Sequence[Path]) -> None:
    dvc.run(layout, "pull", "--quiet", *(path.relative_to(layout.root).as_posix() for path in paths))


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
