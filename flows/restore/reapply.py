"""`lmeraser reapply`: after a restore, every erasure that is newer than the backup is done again and certified as such.

    look        certificates here, in git and kept elsewhere; everybody who is known to be erased: changes nothing
    remember    the machine's memory has everybody: whatever is built from here on leaves them out
    take in     missing certificates are put back, and the ledger learns of their requests
    effect      a new request for who is back, by pseudonyms: what is served leaves them out at once
    mend        list and pipeline are brought up to date where parts of different ages came together
    carry out   that request and all that a restored ledger has open, to their certificates
    clear       where stores alone were restored: purge and scan over everybody on the list

It may be repeated, and killed anywhere: each part looks at what is there. Whoever calls holds the workspace's lock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.dvc import command as dvc
from flows.dvc import lock_backups
from flows.project import Project
from flows.purge import step as purging
from flows.purge.git_history import Repository
from flows.requests import coordinator, ground
from flows.requests.quarantine import refresh
from flows.requests.repeats import Repeats, receive_again
from flows.restore.back import Back, condemned_files, people_back
from flows.restore.chain import known_chain, require_subject_key, take_in
from flows.restore.stores import BATCH, Cleared, clear_stores, drop_finished_terms, mend_cache
from flows.restore.witnesses import Witnesses, ask_witnesses
from flows.run.build import build
from lmeraser.core.digest import sha256
from lmeraser.core.errors import ProjectError
from lmeraser.core.files import discard, write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.progress import say
from lmeraser.erase.erased import ErasedList
from lmeraser.erase.requests import MAX_SUBJECTS
from lmeraser.erase.states import CERTIFIED
from lmeraser.pipeline.files import locks_there
from lmeraser.pipeline.locks import digest_of_locks
from lmeraser.prove.verify import Head

EVENT = "reapplied"


@dataclass(frozen=True)
class Reapplied:
    """What a restore took back, and what was done again.

    Attributes:
        witnesses: people by who tells of them; known: all of them together. listed: how many data/erased.json lacked.
        certificates, requests: that came back, and that the ledger did not know.
        records, source: people who were back there; repeats: ids of requests whose erasures were done again.
        finished: ids of the requests that were certified now; certificates_now: their files. cleared: by store, else empty.
        notes: what could not be asked, in words.
    """

    witnesses: dict[str, int]
    known: int
    listed: int
    certificates: int
    requests: list[str]
    records: int
    source: int
    repeats: list[str]
    finished: list[str]
    certificates_now: list[str]
    cleared: dict[str, int]
    notes: list[str] = field(default_factory=list)

    @property
    def anything(self) -> bool:
        """Whether a restore had taken something back."""
        counts = (self.listed, self.certificates, self.records, self.source)
        return any(counts) or bool(self.requests or self.finished or self.cleared)

    def to_json(self) -> dict[str, Any]:
        return {
            "known": self.known,
            "witnesses": self.witnesses,
            "listed_again": self.listed,
            "certificates_restored": self.certificates,
            "requests_restored": self.requests,
            "back_in_records": self.records,
            "back_in_source": self.source,
            "repeats": self.repeats,
            "certified": self.finished,
            "certificates": self.certificates_now,
            "deleted": self.cleared,
            "restored": self.anything,
            "notes": self.notes,
        }


def reapply(project: Project, elsewhere: Path | None = None, head: Head | None = None) -> Reapplied:
    """Do again what a restore undid. Args: elsewhere, head: see `known_chain`.

    Raises: ProjectError, BadInputError, CertificateError before anything is changed; BlockedError, StepFailedError and
    VerificationError later: mend what they say, and repeat.
    """
    chain = known_chain(project, elsewhere, head)
    key = project.subject_key() if project.key_file.exists() else None
    witnesses = ask_witnesses(project, chain, key)
    everybody = witnesses.everybody
    if everybody:
        key = project.subject_key()  # says what to do where it is missing
        require_subject_key(chain, key)
        ErasedList(key.id, everybody).remember(project.layout)
    came, entered = take_in(project, chain)
    project.layout.object_index.unlink(missing_ok=True)  # what it knows is of files from before the restore
    _keep_locks(project.layout)
    lacked = len(everybody - witnesses.people["list"])
    back = people_back(project, everybody - ground.everybody(project.ledger.all(open_only=True)))
    _condemn(project, back)
    repeats = _take_effect(project, witnesses, back)
    _bring_up_to_date(project)
    if back.copy:
        refresh(project, renewed=True)
    finished = [request for request in coordinator.run_open(project, retry_failed=True) if request.state == CERTIFIED]
    ground.keep_list(project)
    if everybody and not _is_current(project):
        build(project.layout)
    cleared = clear_stores(project) if everybody and not finished else Cleared({}, 0)
    drop_finished_terms(project)
    discard(project.layout.restored_locks)
    outcome = Reapplied(
        witnesses.counts(),
        len(everybody),
        lacked,
        came,
        entered,
        len(back.records),
        len(back.source),
        repeats,
        [request.request_id for request in finished],
        [request.certificate for request in finished if request.certificate],
        cleared.deleted,
        _notes(project, witnesses),
    )
    if everybody:
        project.ledger.note(None, EVENT, outcome.to_json() | {"notes": len(outcome.notes)})
    return outcome


def _take_effect(project: Project, witnesses: Witnesses, back: Back) -> list[str]:
    """Requests for whoever is back, in effect at once. Returns: ids of the requests that are repeated."""
    people = sorted(back.everybody)
    repeated: set[str] = set()
    for start in range(0, len(people), MAX_SUBJECTS):
        share = people[start : start + MAX_SUBJECTS]
        request = receive_again(project, share, _repeats(witnesses, back, share))
        repeated |= {identity for name in share for identity in witnesses.requests.get(name, ())}
        say(f"{len(share)} erased people are back: request {request.request_id} erases them again")
    for error in coordinator.take_in(project):  # artifacts of different ages: it is in effect once they are built
        say(f"not in effect yet: {error}")
    return sorted(repeated)


def _condemn(project: Project, back: Back) -> None:
    """Remember by digest what of the restored records must go: the journals of purges may have been restored as well."""
    objects = condemned_files(project, back.records)
    if objects:
        name = f"{BATCH}-{sha256(' '.join(objects).encode())[:16]}"
        purging.write_journal(project.layout, name, purging.PurgeJournal(objects=objects, run_entries=()))


def _keep_locks(layout: Layout) -> None:
    """Copy the locks as they are now: the build and the purge must know what was made of what."""
    folder = layout.restored_locks / digest_of_locks(layout.root)[:16]
    for lock in locks_there(layout.root):
        write_atomically(folder / lock.relative_to(layout.root), lock.read_bytes(), mode=0o600)


def _repeats(witnesses: Witnesses, back: Back, people: Sequence[str]) -> Repeats:
    ids = {identity for name in people for identity in witnesses.requests.get(name, ())}
    unnamed = sum(name not in witnesses.requests for name in people)
    here = set(people)
    return Repeats(tuple(sorted(ids)), unnamed, len(here & back.records), len(here & back.source))


def _is_current(project: Project) -> bool:
    try:
        dvc.require_current(project.layout, whole=True)
    except ProjectError:
        return False
    return True


def _bring_up_to_date(project: Project) -> None:
    """Mend list, pipeline and cache where parts of different ages came together; a killed retraining goes on by itself."""
    layout = project.layout
    begun = [request for request in project.ledger.all(open_only=True) if request.batch_id]
    for request in begun:
        lock_backups.mend(layout, request.batch_id or "")
    if not _is_current(project):
        if any(request.reached == "removed" for request in begun) and not _is_foreign(layout):
            return
        _mend(project)
    mend_cache(layout)


def _is_foreign(layout: Layout) -> bool:
    """Whether something is stale for another reason than the list and what stages make."""
    try:
        return bool(ground.foreign_changes(dvc.status(layout, whole=True)))
    except ProjectError:
        return True


def _mend(project: Project) -> None:
    """Bring the list and the pipeline up to date."""
    layout = project.layout
    if not layout.erased.exists():
        ErasedList(None, frozenset()).write(layout.erased)
    ground.keep_list(project)
    say("what was restored is of different ages; the pipeline is brought up to date without the erased people")
    build(layout)


def _notes(project: Project, witnesses: Witnesses) -> list[str]:
    """What was not asked, in words."""
    notes = []
    problem = Repository.of(project.layout).problem
    if problem:
        notes.append(f"older versions of the list and of certificates in git were not asked: {problem}")
    if witnesses.foreign:
        notes.append(
            f"{witnesses.foreign} versions of data/erased.json in git were made with another subject key: nobody on them is known"
        )
    return notes
