"""The Prefect flows `build`, `audit` and `audit-part`: what the commands of these names do, for deployments."""

from prefect import flow

from flows.project import Project, workspace
from flows.requests.ground import keep_list
from flows.requests.quarantine import renew
from flows.run import build as building
from flows.run.handout import BUILD
from flows.service.fan_out import workers_of
from flows.service.storable_errors import storable_errors
from lmeraser.core.errors import VerificationError
from lmeraser.pipeline.mixing import require_one_environment


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
        building.build(project.layout, workers)
        renew(project)
        if workers:
            require_one_environment(project.layout, project.params)


@flow(name="audit", persist_result=False, log_prints=False)
@storable_errors
def audit(rebuild: bool = True, stores: bool = True) -> str:
    """Rebuild from the retained records and compare; scan every store. Raises: VerificationError if something is found."""
    from flows.audit.rebuild import rebuild as build_again
    from flows.audit.stores import audit_and_note

    project = Project.find()
    results = []
    with workspace(project):
        if rebuild:
            comparison = build_again(project)
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
