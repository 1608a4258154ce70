"""The Prefect flows `build`, `audit`, `audit-part`, `audit-due` and `upkeep`: what commands do, for deployments."""

import sys

from prefect import flow

from flows import processes
from flows.project import Project, workspace
from flows.requests.ground import keep_list
from flows.requests.proposals import say_before_build
from flows.requests.quarantine import renew
from flows.run import build as building
from flows.run.handout import BUILD
from flows.service.fan_out import workers_of
from flows.service.storable_errors import storable_errors
from lmeraser.core.errors import StepFailedError, VerificationError
from lmeraser.pipeline.mixing import require_one_environment

INTERRUPTED = 130  # `lmeraser` was interrupted; here: by itself, to give way


@flow(name="build", persist_result=False, log_prints=False)
@storable_errors
def build() -> None:
    """Bring everything that the pipeline makes up to date; parts and slots by workers, if `service.fan_out` says so.

    Raises: VerificationError if a worker's environment is another one: every erasure would be refused.
    """
    project = Project.find()
    with workspace(project):
        keep_list(project)
        workers = workers_of(project, BUILD)
        building.build(project.layout, workers, lambda: say_before_build(project))
        renew(project)
        if workers:
            require_one_environment(project.layout, project.params)


@flow(name="audit", persist_result=False, log_prints=False)
@storable_errors
def audit(rebuild: bool = True, stores: bool = True) -> str:
    """Rebuild from the retained records and compare; scan every store. Raises: VerificationError if something is found."""
    from flows.audit.due import rebuild_and_note
    from flows.audit.stores import audit_and_note

    project = Project.find()
    results = []
    with workspace(project):
        if rebuild:
            comparison, _ = rebuild_and_note(project)
            results.append(f"{comparison.artifacts} artifacts compared, {len(comparison.differing)} differ")
            if not comparison.equal:
                raise VerificationError(results[-1])
        results.append(f"{project.ledger.verify_chain()} events of the ledger are as they were written")
        if stores and project.erased.pseudonyms:  # before the first erasure there is nothing to look for
            report = audit_and_note(project)
            results.append(f"{len(report.stores)} stores scanned")
            if not report.clean:
                raise VerificationError(f"{results[-1]}: residue was found; run `lmeraser audit --stores` to see where")
    return "; ".join(results)


@flow(name="audit-part", persist_result=False, log_prints=False)
@storable_errors
def audit_part() -> str:
    """Read the files whose turn it is, once a day. Raises: VerificationError if something is found."""
    from flows.audit.stores import audit_and_note, audited_today
    from flows.purge.report import which_scan

    project = Project.find()
    share = project.params.service.audit_share
    if not share or not project.erased.pseudonyms:
        return "nothing to do: service.audit_share is 0, or nobody was erased yet"
    with workspace(project):
        if audited_today(project):
            return "nothing to do: the stores were audited today"
        report = audit_and_note(project, share=share)
    if not report.clean:
        raise VerificationError("residue was found in the files whose turn it was; run `lmeraser audit --stores` to see where")
    return which_scan(report)


@flow(name="upkeep", persist_result=False, log_prints=False)
@storable_errors
def upkeep() -> str:
    """Delete what is past its period, and propose who may have to go; counts alone. Raises: BadInputError, StepFailedError."""
    from flows.service import upkeep as daily

    cleared, outcome = daily.upkeep(Project.find())
    return f"{cleared.logs} logs and {cleared.words} words deleted; {len(outcome.proposed)} requests proposed"


@flow(name="audit-due", persist_result=False, log_prints=False)
@storable_errors
def audit_due() -> str:
    """Rebuild what the audit key chose, in a process of its own that ends as soon as a request comes: no erasure waits for it.

    Raises: VerificationError if artifacts differ; StepFailedError if it could not be done.
    """
    from flows.audit.due import due, own_selection
    from flows.audit.giving_way import somebody_waits

    project = Project.find()
    waiting = set(due(project))
    if not waiting:
        return "nothing to do: no rebuild is due"
    if somebody_waits(project):
        return "nothing was done: requests are open, and go first"
    logs = project.layout.private_state / "logs"
    logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (logs / "audit-due.log").open("ab") as log:
        command = [sys.executable, "-m", "flows.cli", "audit", "--due", "--give-way"]
        status = processes.statuses([processes.start(command, project.layout, stdout=log, stderr=log)])[0]
    selection = own_selection(project)
    if selection and waiting & set(selection.unequal):
        raise VerificationError("artifacts differ from a rebuild; run `lmeraser audit --rebuild` to see which")
    if status == INTERRUPTED:
        return "ended before it was done: a request came, and goes first"
    if status:
        raise StepFailedError("the rebuild that is due could not be done; see .lmeraser/logs/audit-due.log")
    return f"{len(waiting)} erasures rebuilt, with equal artifacts"
