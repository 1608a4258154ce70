"""retrained: the pipeline is up to date without the people; only what they touched ran."""

from dataclasses import replace

from flows.dvc import command as dvc
from flows.dvc import lock_backups
from flows.project import Project
from flows.requests import ground
from flows.requests.quarantine import serve_solved
from flows.requests.work import Done, Work
from flows.run import before, build
from lmeraser.core.errors import LmeraserError
from lmeraser.core.private import close_private
from lmeraser.core.progress import say
from lmeraser.erase.batches import BatchRecord
from lmeraser.erase.plan import Plan
from lmeraser.pipeline.files import stage_names
from lmeraser.pipeline.locks import Outs, outs_by_stage
from lmeraser.serve.quarantine import WITHHELD, read_quarantine


def retrain(work: Work) -> Done:
    """Bring the pipeline up to date without the subjects: only what they touched runs. Returns seconds by stage.

    Where the locks are no longer those that the plan was made on, the whole pipeline is replayed: DVC finds out by content.
    If a stage fails, the last whole state is brought back and the requests stay open; the served model leaves them out anyway.
    """
    project, batch = work.project, work.batch
    plan = batch.outcome
    lock_backups.keep(project.layout, batch.batch_id)
    lock_backups.mend(project.layout, batch.batch_id)
    seconds: dict[str, float] = {}
    try:
        if plan.exact and plan.records_removed and changed_stages(project, batch)[0] <= expected_changes(project, plan):
            seconds = _update(work, plan)
        else:
            if plan.exact and plan.records_removed:  # not the state that was planned on
                batch = replace(batch, moved=True)
            build.build(project.layout, work.workers)
        before.drop(project.layout, batch.batch_id)  # also of a try that was killed: it holds the people
    except LmeraserError:
        restore(project, batch)
        raise
    return Done(ground.record(project, batch), seconds)


def _update(work: Work, plan: Plan) -> dict[str, float]:
    """Run what the plan names; the global head that the served copy still lacks comes first, if it has a backbone to stand on."""
    project, batch = work.project, work.batch
    quarantine = read_quarantine(project.layout)
    unsolved = [quarantine.folder] if quarantine and quarantine.head == WITHHELD and not plan.rebuild else []
    slots = [*plan.slots_retrained, *plan.slots_emptied]
    state = None if plan.rebuild else before.keep(project.layout, batch.batch_id, batch.before, plan.parts)
    seconds = build.update(project.layout, plan.parts, slots, unsolved, work.workers, state)
    for folder in unsolved:
        serve_solved(project, folder)
    return seconds


def restore(project: Project, batch: BatchRecord) -> None:
    """Bring back the artifacts as they were before the batch."""
    try:
        lock_backups.put_back(project.layout, batch.batch_id)
        dvc.run(project.layout, "checkout", "--quiet", "--force")
        close_private(project.layout)
    except (OSError, LmeraserError):
        say("the last whole state could not be brought back; run `dvc checkout` once the cause is mended")


def changed_stages(project: Project, batch: BatchRecord) -> tuple[set[str], dict[str, Outs]]:
    """Stages whose outs are not those from before the batch; and all that is recorded now."""
    after = outs_by_stage(project.layout.lock)
    changed = {stage for stage, outs in after.items() if any(batch.before.get(path) != md5 for path, md5 in outs.items())}
    return changed, after


def expected_changes(project: Project, plan: Plan) -> set[str]:
    """The DVC stages whose outs this plan may change."""
    slots = {*plan.slots_retrained, *plan.slots_emptied}
    if plan.rebuild:
        return set(outs_by_stage(project.layout.lock))
    if not plan.exact:
        slots = set(project.params.slots)
    always = {"split", "cluster", "validate", "head", "evaluate"}
    return always | {*stage_names("embed", plan.parts), *stage_names("tune", slots)}
