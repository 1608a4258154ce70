"""The last step of a request: what was done is signed and appended to the chain of certificates.

Nothing is signed that was not checked on the very state that the certificate names: locks, list and served files are compared
with those of the checks once more.
"""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

from flows.project import Project
from flows.requests import ground
from flows.requests.steps import plan_of, served_files
from lmeraser.core.code import PACKAGES
from lmeraser.core.digest import sha256_of_file
from lmeraser.core.environment import fingerprint
from lmeraser.core.errors import StepFailedError, VerificationError
from lmeraser.erase.ledger import Claim
from lmeraser.erase.requests import Batch, Request
from lmeraser.erase.states import CERTIFIED
from lmeraser.pipeline.locks import compare, read_outs
from lmeraser.pipeline.mixing import artifacts_environment
from lmeraser.prove.certificate import issue, read_head
from lmeraser.prove.home import load_or_create_project_id
from lmeraser.prove.keys import load_or_create_signer, load_public, signing_key_path
from lmeraser.prove.statement import Check, Counts, Erasure, Store


def code_revision(root: Path) -> str:
    """The commit of the project's code, marked if files that git tracks differ from it."""
    git = ["git", "-C", str(root)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return "none (no commit)"
    code = (*PACKAGES, "dvc.yaml", "tune")
    dirty = subprocess.run([*git, "status", "--porcelain", "--", *code], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+changed" if dirty.stdout.strip() else "")


def require_served(project: Project, batch: Batch) -> dict[str, str]:
    """Digests of what is served, which must be those of what was checked. Raises: StepFailedError."""
    root = project.layout.root
    served = {str(path.relative_to(root)): sha256_of_file(path) for path in served_files(project) if path.exists()}
    other = sorted(path for path, digest in batch.facts["served"].items() if served.get(path) != digest)
    if other or served.keys() != batch.facts["served"].keys():
        first = other[0] if other else "the set of served files"
        raise StepFailedError(
            f"{first} is not what was checked ({len(other)} such files); delete what is not, run `dvc checkout`, then "
            "`lmeraser resume`"
        )
    return served


def certify(project: Project, batch: Batch, request_id: str, claim: Claim) -> None:
    """Sign what was done, append it to the chain of certificates, and end the request."""
    layout, ledger = project.layout, project.ledger
    ground.require_ground(project, batch)
    signer = load_or_create_signer(signing_key_path(layout.private_state), layout.public_keys)
    known = ledger.last_event("certified")
    head = (int(known.data["sequence"]), str(known.data["sha256"])) if known else None
    told = erasure_of(project, batch, ledger.get(request_id))
    path = issue(layout.certificates, told, signer, load_public(layout.public_keys), head)
    signed = read_head(layout.certificates)
    if signed is None:
        raise VerificationError("certificates/HEAD is missing although a certificate was signed; restore it from git")
    sequence, digest = signed
    note = {"sequence": sequence, "sha256": digest, "batch": batch.batch_id}
    ledger.move([request_id], CERTIFIED, claim, note, certificate=str(path.relative_to(layout.root)))


def _scan_pairs(batch: Batch) -> list[tuple[str, str]]:
    """What the scan found, check by check; a batch of an older version kept one pair."""
    kept = batch.facts["scan"]
    return [tuple(kept)] if isinstance(kept[0], str) else [tuple(pair) for pair in kept]


def erasure_of(project: Project, batch: Batch, request: Request) -> Erasure:
    """What a certificate tells of a request: what was removed for it alone, and what its batch retrained."""
    layout = project.layout
    made_in = artifacts_environment(layout, project.params)
    after = read_outs(layout.lock)
    changed = compare(batch.before, after).differing
    own = batch.facts["plans"][request.request_id]
    stands = ground.Ground.of(project)
    return Erasure(
        project=load_or_create_project_id(layout.project_id),
        request_id=request.request_id,
        pseudonyms=request.pseudonyms,
        subject_key_id=project.key().id,
        locks=stands.locks,
        erased_list=stands.erased,
        received_at=request.received_at,
        # Not before the receipt, whatever the clock says now: it may have been moved back.
        completed_at=max(datetime.now(UTC).isoformat(timespec="seconds"), request.received_at),
        plan=Counts.of(plan_of(batch).to_json() | {"records_removed": own["records_removed"]}),
        batch_requests=len(batch.facts["plans"]),
        served=require_served(project, batch),
        changed={path: (batch.before.get(path), after.get(path)) for path in changed},
        unchanged=len(after) - len([path for path in changed if path in after]),
        environment=made_in,
        fingerprint=fingerprint(made_in),
        code_revision=code_revision(layout.root),
        checks=tuple(Check(check, found) for check, found in [*batch.facts["checks"], *_scan_pairs(batch)]),
        stores=tuple(Store(one["store"], one["deleted"], one["residue"], one.get("unknown", 0)) for one in batch.facts["stores"]),
        source=batch.facts["source"],
        approved=any(event.kind == "approved" for event in project.ledger.events(request.request_id)),
    )
