"""The last step of a request: what was done is signed and appended to the chain of certificates.

Nothing is signed that was not checked on the very state that the certificate names: locks, list and served files are compared
with those of the checks once more.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flows import git
from flows.project import Project
from flows.requests import ground
from flows.requests.proposals import proposal_checks
from flows.requests.repeats import repeats_checks, repeats_of
from flows.requests.verify import prove_absence, served_digests
from flows.requests.work import Done, Work
from lmeraser.core.code import PACKAGES
from lmeraser.core.environment import fingerprint
from lmeraser.core.errors import StepFailedError, VerificationError
from lmeraser.erase.batches import BatchRecord
from lmeraser.erase.erased import CORRECTED, IMAGE, corrections_among, images_among, people_among
from lmeraser.erase.ledger_restored import RESTORED
from lmeraser.erase.requests import Request
from lmeraser.erase.states import CERTIFIED
from lmeraser.pipeline.locks import compare, read_outs
from lmeraser.pipeline.mixing import artifacts_environment
from lmeraser.prove.absence import Absence
from lmeraser.prove.certificate import issue, read_head
from lmeraser.prove.home import load_or_create_project_id
from lmeraser.prove.keys import load_or_create_signer, load_public, signing_key_path
from lmeraser.prove.selection import AuditKey
from lmeraser.prove.statement import Check, Counts, Erasure, Store
from lmeraser.prove.verify import Head, verify_bytes

if TYPE_CHECKING:
    from securesystemslib.signer._key import SSlibKey  # the package does not export it to mypy

CODE = (*PACKAGES, "dvc.yaml", "tune")  # what makes a certificate's artifacts


def require_served(project: Project, batch: BatchRecord) -> dict[str, str]:
    """Digests of what is served, which must be those of what was checked. Raises: StepFailedError."""
    served = served_digests(project)
    other = sorted(path for path, digest in batch.served.items() if served.get(path) != digest)
    if other or served.keys() != batch.served.keys():
        first = other[0] if other else "the set of served files"
        raise StepFailedError(
            f"{first} is not what was checked ({len(other)} such files); delete what is not, run `dvc checkout`, then "
            "`lmeraser resume`"
        )
    return served


def known_head(project: Project) -> Head | None:
    """The last certificate that the ledger knows: that it issued, or that was restored to it; None if it knows none."""
    known = [event for kind in (CERTIFIED, RESTORED) if (event := project.ledger.last_event(kind))]
    return max(((int(event.data["sequence"]), str(event.data["sha256"])) for event in known), default=None)


def certify(work: Work) -> Done:
    """Sign what was done for one request, append it to the chain of certificates, and end the request."""
    project, batch = work.project, work.batch
    layout, ledger = project.layout, project.ledger
    (request,) = work.requests
    ground.require_ground(project, batch)
    signer = load_or_create_signer(signing_key_path(layout.private_state), layout.public_keys)
    known, keys = known_head(project), load_public(layout.public_keys)
    path = issue(layout.certificates, erasure_of(project, batch, request), signer, keys, known)
    signed = read_head(layout.certificates)
    if signed is None:
        raise VerificationError("certificates/HEAD is missing although a certificate was signed; restore it from git")
    sequence, digest = signed
    note = {"sequence": sequence, "sha256": digest, "batch": batch.batch_id, **_selection(path, keys)}
    ledger.move([request.request_id], CERTIFIED, work.claim, note, certificate=str(path.relative_to(layout.root)))
    return Done(batch)


def _selection(path: Path, keys: "Sequence[SSlibKey]") -> dict[str, str | int]:
    """What the certificate says of the choice of rebuilds; nothing where an older version signed it before it was killed."""
    signed = verify_bytes(path.read_bytes(), path.name, keys, path.name)
    if signed.audit_key is None or signed.rebuild_share is None:
        return {}
    return {"audit_key_id": signed.audit_key, "rebuild_share": signed.rebuild_share}


def erasure_of(project: Project, batch: BatchRecord, request: Request) -> Erasure:
    """What a certificate tells of a request: what was removed for it alone, and what its batch retrained."""
    layout = project.layout
    made_in = artifacts_environment(layout, project.params)
    after = read_outs(layout.lock)
    changed = compare(batch.before, after).differing
    own = batch.plans[request.request_id]
    stands = ground.current(project)
    return Erasure(
        project=load_or_create_project_id(layout.project_id),
        request_id=request.request_id,
        pseudonyms=tuple(sorted(people_among(request.pseudonyms))),
        images=tuple(sorted(pseudonym.removeprefix(IMAGE) for pseudonym in images_among(request.pseudonyms))),
        rectified=tuple(sorted(text.removeprefix(CORRECTED) for text in corrections_among(request.pseudonyms))),
        subject_key_id=project.subject_key().id,
        locks=stands.locks,
        erased_list=stands.erased,
        received_at=request.received_at,
        # Not before the receipt, whatever the clock says now: it may have been moved back.
        completed_at=max(datetime.now(UTC).isoformat(timespec="seconds"), request.received_at),
        plan=Counts.of(replace(batch.outcome, records_removed=own.records_removed)),
        batch_requests=len(batch.plans),
        served=require_served(project, batch),
        changed={path: (batch.before.get(path), after.get(path)) for path in changed},
        unchanged=len(after) - len([path for path in changed if path in after]),
        environment=made_in,
        fingerprint=fingerprint(made_in),
        code_revision=git.revision(layout.root, CODE),
        checks=(
            *(Check(check, result) for check, result in (*batch.checks, *batch.scan)),
            *repeats_checks(repeats_of(project, request.request_id)),
            *proposal_checks(project, request),
        ),
        stores=tuple(Store(counts.store, counts.deleted, counts.residue, counts.unknown) for counts in batch.stores),
        absence=_absence(project, batch, request),
        source=batch.source or "",
        approved=any(event.kind == "approved" for event in project.ledger.events(request.request_id)),
        audit_key_id=AuditKey.load_or_create(layout.audit_key).id,
        rebuild_share=project.params.service.rebuild_share,
    )


def _absence(project: Project, batch: BatchRecord, request: Request) -> Absence:
    """As the checks found it; made now where an older version made the checks."""
    people = people_among(request.pseudonyms)
    proven = Absence.from_json(batch.absence) if batch.absence else prove_absence(project, people)
    return proven.of(people)
