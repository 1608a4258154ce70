"""The steps of a request, each safe to repeat after a crash. They take ids only: Prefect stores parameters.

received -> validated -> removed -> retrained -> verified. A later step trusts only what an earlier one stored; one project is
changed by one process at a time (`workspace`).
"""

import fcntl
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from flows import dvc
from flows.build import update
from lmeraser.core.clustering import load_members, load_placements, load_sizes
from lmeraser.core.digest import readable_json, write_whole
from lmeraser.core.errors import LmeraserError, ProjectError, StepFailedError, VerificationError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.core.progress import say
from lmeraser.core.records import read_records
from lmeraser.erase.erased import ErasedList, SubjectKey, key_path, load_key, load_or_create_key
from lmeraser.erase.facts import check_known, gather_facts, normalise_subjects
from lmeraser.erase.plan import Plan, make_plan
from lmeraser.erase.requests import FINAL, Request, RequestStore, check_request_id, new_request
from lmeraser.prove.lock import Outs, outs_by_stage, read_outs
from lmeraser.prove.receipt import make_receipt
from lmeraser.sources import open_source


@dataclass(frozen=True)
class Project:
    """A project's folder with its params, its key and its requests."""

    layout: Layout

    @classmethod
    def find(cls) -> "Project":
        return cls(Layout.find(Path.cwd()))

    @cached_property
    def params(self) -> Params:
        return load_params(self.layout.params)

    @property
    def key_file(self) -> Path:
        return key_path(self.layout.private_state)

    @property
    def requests(self) -> RequestStore:
        return RequestStore(self.layout.private_state / "requests")

    @property
    def erased(self) -> ErasedList:
        return ErasedList.read(self.layout.erased)

    def key(self) -> SubjectKey:
        """The subject key; made on first use, and never again once somebody was erased with it."""
        return load_key(self.key_file) if self.erased.pseudonyms else load_or_create_key(self.key_file)


@contextmanager
def workspace(project: Project) -> Iterator[None]:
    """Change the project alone: a second process waits here."""
    project.layout.private_state.mkdir(exist_ok=True, mode=0o700)
    with (project.layout.private_state / "workspace.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is changing this project; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def draft_plan(project: Project, subjects: Sequence[str], include_public: bool) -> Plan:
    """What erasing the subjects would touch. Changes nothing. Raises: BadInputError, BlockedError."""
    params = project.params  # checked before anything else: a misspelt param must not look like a stale pipeline
    names = normalise_subjects(subjects)
    open_requests = [request for request in project.requests.all() if request.is_open]
    if open_requests:
        raise ProjectError(f"request {open_requests[0].request_id} is not finished; run `lmeraser resume` first")
    dvc.require_current(project.layout)
    facts = gather_facts(project.layout, params)
    listed = project.erased
    # Without a key file nobody can be on the list; a plan must not create one.
    if listed.pseudonyms:
        check_known(names, facts, listed, load_key(project.key_file))
    else:
        check_known(names, facts, listed, SubjectKey(b"\0" * 32))
    return make_plan(names, facts, include_public)


def receive(project: Project, subjects: Sequence[str], request_id: str | None, include_public: bool) -> str:
    """Accept a request, or recognise it: the same id twice has one effect. Returns its id.

    A refused request leaves no trace and changes nothing.
    """
    identity = check_request_id(request_id)
    known = project.requests.find(identity)
    if known is not None:
        if subjects:
            pseudonyms = map(load_key(project.key_file).pseudonym, normalise_subjects(subjects))
            project.requests.require_same(known, pseudonyms)
        return identity
    names = normalise_subjects(subjects)
    plan = draft_plan(project, names, include_public)
    pseudonyms = map(project.key().pseudonym, names)
    before = read_outs(project.layout.lock)
    request = new_request(identity, pseudonyms, include_public)
    project.requests.save(request, state="validated", plan=plan.to_json(), before=before)
    return identity


def remove(project: Project, request_id: str) -> None:
    """Put the subjects on the list that keeps them out for ever."""
    request = project.requests.get(request_id)
    if request.reached("removed"):
        return
    project.erased.add(request.pseudonyms, project.key()).write(project.layout.erased)
    project.requests.save(request, state="removed")


def retrain(project: Project, request_id: str) -> None:
    """Bring the pipeline up to date without the subjects: only what they touched runs.

    If a stage fails, the last whole state is brought back and the request stays open.
    """
    request = project.requests.get(request_id)
    if request.reached("retrained"):
        return
    plan = Plan.from_json(request.plan or {})
    kept = project.requests.lock_copy(request_id)
    if not kept.exists():  # after a kill it does, and is older than what the killed try wrote
        shutil.copyfile(project.layout.lock, kept)
    try:
        if plan.exact:
            update(project.layout, plan.parts, [*plan.slots_retrained, *plan.slots_emptied])
        else:
            # Only the replay tells which clusters change: DVC finds out by content.
            dvc.run(project.layout, "repro", "--quiet")
    except LmeraserError:
        restore(project, request_id)
        raise
    project.requests.save(request, state="retrained")


def restore(project: Project, request_id: str) -> None:
    """Bring back the artifacts as they were before the request, so that a whole model is served meanwhile."""
    try:
        # A rename needs no space (the disk may be full); the next try copies the lock again.
        project.requests.lock_copy(request_id).replace(project.layout.lock)
        dvc.run(project.layout, "checkout", "--quiet", "--force")
    except (OSError, LmeraserError):
        say("the last whole state could not be brought back; run `dvc checkout` once the cause is mended")


def expected_changes(project: Project, plan: Plan) -> set[str]:
    """The DVC stages whose outs this plan may change."""
    slots = {*plan.slots_retrained, *plan.slots_emptied}
    if plan.rebuild:
        return set(outs_by_stage(project.layout.lock))
    if not plan.exact:
        slots = set(project.params.slots)
    changed = {"split", "cluster", "validate", "head", "evaluate"}
    return changed | {f"embed@{part}" for part in plan.parts} | {f"tune@{slot}" for slot in slots}


def verify(project: Project, request_id: str) -> list[str]:
    """Show that the subjects are gone and that nothing else changed, or raise VerificationError. Returns what was checked."""
    request = project.requests.get(request_id)
    plan = Plan.from_json(request.plan or {})
    layout, params = project.layout, project.params
    if dvc.status(layout):
        dvc.run(layout, "repro", "--quiet")  # a crash came between a step's work and its record
        if dvc.status(layout):
            raise VerificationError("the pipeline does not come up to date; see `dvc status`")
    key, wanted = project.key(), set(request.pseudonyms)
    files = [layout.public, *(layout.part(part) for part in params.parts)]
    kept = {record.id: record.subject for file in files for record in read_records(file)}
    if not kept:
        raise VerificationError("no record was found to check; checking nothing proves nothing")
    if wanted & set(map(key.pseudonym, set(kept.values()))):
        raise VerificationError("records of the request's subjects are still in the parts")
    placed = [member.id for part in params.parts for member in load_placements(layout.leaves(part), part)]
    tuned = [member["id"] for slot in params.slots for member in load_members(layout.members(slot))]
    if not set(placed) | set(tuned) <= set(kept) or sorted(placed) != sorted(tuned):
        raise VerificationError("a cluster holds a record that is in no part, or misses one")
    after = outs_by_stage(layout.lock)
    before = request.before or {}
    changed = {stage for stage, outs in after.items() if any(before.get(path) != md5 for path, md5 in outs.items())}
    surplus = sorted(changed - expected_changes(project, plan))
    if surplus:
        raise VerificationError(f"{surplus[0]} changed, and the plan did not name it ({len(surplus)} such stages)")
    used = {size["slot"] for size in load_sizes(layout.clusters)}
    if plan.exact and (len(used) != plan.clusters_total or not used >= set(plan.slots_retrained)):
        raise VerificationError(f"{len(used)} clusters came out, the plan said {plan.clusters_total}")
    return [
        "the pipeline is up to date",
        f"none of {len(kept)} retained records belongs to the request's subjects",
        f"{len(tuned)} training records are each in exactly one cluster",
        f"{len(changed)} stages changed, all of them planned; {len(after) - len(changed)} are untouched",
    ]


def clear_source(project: Project, request_id: str) -> str:
    """Delete the subjects' rows and files from the source if params say so; returns what happened, in words.

    Runs after `verify`: evidence first, then what cannot be undone.
    """
    request = project.requests.get(request_id)
    plan = Plan.from_json(request.plan or {})
    if not project.params.source.erase:
        return plan.source
    source = open_source(project.params.source, project.layout.root)
    table = source.table()
    key = project.key()
    gone = table[table["subject"].map(key.pseudonym).isin(request.pseudonyms)]
    rows = max(len(gone), request.source_rows)  # after a crash the rows may be gone already
    project.requests.save(request, source_rows=rows)
    if len(gone):
        problems = source.drop(gone["line"].tolist(), gone["path"].tolist())
        if problems:
            raise StepFailedError(f"source: {problems[0]}; check their permissions")
        dvc.run(project.layout, "repro", "--quiet")  # split reads the shorter source; its outs are the same
    return f"erased: {rows} rows and their files"


def code_revision(root: Path) -> str:
    """The commit of the project's code, marked if files that git tracks differ from it."""
    git = ["git", "-C", str(root)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return "none (no commit)"
    code = ("lmeraser", "stages", "flows", "dvc.yaml")
    dirty = subprocess.run([*git, "status", "--porcelain", "--", *code], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+changed" if dirty.stdout.strip() else "")


def write_receipt(project: Project, request_id: str, checks: list[str], source: str) -> Path:
    """Write receipts/ID.json and close the request."""
    request = project.requests.get(request_id)
    after: Outs = read_outs(project.layout.lock)
    facts: dict[str, Any] = {
        "device": project.params.device,
        "code_revision": code_revision(project.layout.root),
        "received_at": request.received_at,
        "completed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": source,
    }
    receipt = make_receipt(request_id, request.plan or {}, request.before or {}, after, checks, facts)
    path = project.layout.receipts / f"{request_id}.json"
    write_whole(path, readable_json(receipt))
    relative = str(path.relative_to(project.layout.root))
    project.requests.save(request, state=FINAL, problem=None, receipt=relative)
    project.requests.lock_copy(request_id).unlink(missing_ok=True)
    return path


@contextmanager
def attempt(project: Project, request_id: str) -> Iterator[Request]:
    """One try at a request: its time is added up and a failure is stored with it; it then stays open and can be resumed."""
    start = time.monotonic()
    request = project.requests.get(request_id)
    problem: str | None = None
    try:
        yield request
    except LmeraserError as error:
        problem = str(error)
        state = project.requests.get(request_id).state
        hint = f"request {request_id} stays open at {state}: {problem}; then run `lmeraser resume`"
        raise StepFailedError(hint, error.exit_code) from error
    finally:
        if request.is_open:
            known = project.requests.get(request_id)
            seconds = round(known.seconds + time.monotonic() - start, 3)
            project.requests.save(known, seconds=seconds, problem=problem)


def carry_out(project: Project, request_id: str) -> Request:
    """Every step of a received request in order, on this machine. Raises: StepFailedError; the request stays open."""
    with attempt(project, request_id) as request:
        if request.is_open:
            remove(project, request_id)
            retrain(project, request_id)
            checks = verify(project, request_id)
            source = clear_source(project, request_id)
            write_receipt(project, request_id, checks, source)
    return project.requests.get(request_id)


def resume(project: Project) -> list[Request]:
    """Finish every open request, oldest first."""
    return [carry_out(project, request.request_id) for request in project.requests.all() if request.is_open]
