"""retrained: the pipeline is up to date without the people; only what they touched ran."""

from flows.dvc import command as dvc
from flows.dvc import lock_backups
from flows.project import Project
from flows.requests import ground
from flows.requests.quarantine import serve_solved
from flows.run import build
from lmeraser.core.errors import LmeraserError
from lmeraser.core.private import close_private
from lmeraser.core.progress import say
from lmeraser.erase.plan import Plan
from lmeraser.erase.requests import Batch
from lmeraser.pipeline.locks import Outs, outs_by_stage
from lmeraser.serve.quarantine import WITHHELD, read_quarantine


def plan_of(batch: Batch) -> Plan:
    """What the batch does: as planned, or as a replay of the pipeline where somebody changed the project on the way."""
    return Plan.from_json(batch.facts.get("replayed") or batch.plan)


def retrain(project: Project, batch: Batch, tune: build.Tuner | None = None) -> dict[str, float]:
    """Bring the pipeline up to date without the subjects: only what they touched runs. Returns seconds by stage.

    Where the locks are no longer those that the plan was made on, the whole pipeline is replayed: DVC finds out by content.
    If a stage fails, the last whole state is brought back and the requests stay open; the served model leaves them out anyway.
    """
    plan = plan_of(batch)
    lock_backups.keep(project.layout, batch.batch_id)
    lock_backups.mend(project.layout, batch.batch_id)
    seconds: dict[str, float] = {}
    try:
        if plan.exact and plan.records_removed and changed_stages(project, batch)[0] <= expected_changes(project, plan):
            withheld = read_quarantine(project.layout)
            first = [f"interim_head@{withheld.folder}"] if withheld and withheld.head == WITHHELD and not plan.rebuild else []
            slots = [*plan.slots_retrained, *plan.slots_emptied]
            seconds = build.update(project.layout, plan.parts, slots, first, tune)
            if withheld and first:
                serve_solved(project, withheld.folder)
        else:
            if plan.exact and plan.records_removed:  # not the state that was planned on
                batch.facts["moved"] = True
            build.build(project.layout)
    except LmeraserError:
        restore(project, batch)
        raise
    ground.record(project, batch)
    return seconds


def restore(project: Project, batch: Batch) -> None:
    """Bring back the artifacts as they were before the batch."""
    try:
        lock_backups.put_back(project.layout, batch.batch_id)
        dvc.run(project.layout, "checkout", "--quiet", "--force")
        close_private(project.layout)
    except (OSError, LmeraserError):
        say("the last whole state could not be brought back; run `dvc checkout` once the cause is mended")


def changed_stages(project: Project, batch: Batch) -> tuple[set[str], dict[str, Outs]]:
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
    changed = {"split", "cluster", "validate", "head", "evaluate"}
    return changed | {f"embed@{part}" for part in plan.parts} | {f"tune@{slot}" for slot in slots}
