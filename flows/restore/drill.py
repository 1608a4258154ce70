"""`lmeraser drill`: backup, erasures, restores and `reapply` in a copy of the project; does anybody come back?

The project itself is only read. What is kept of a drill there are an event of the ledger with counts, and a report without names.
"""

import random
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.dvc import command as dvc
from flows.project import Project, workspace
from flows.purge.leftovers import AUDIT, mark_audit
from flows.purge.scan import audit_stores
from flows.requests import intake
from flows.requests.coordinator import run_open
from flows.restore.back import people_back
from flows.restore.copying import TREE, Copy, apart, commit, copy_project
from flows.restore.reapply import reapply
from flows.run.build import build
from lmeraser.core.digest import readable_json
from lmeraser.core.errors import BadInputError, ProjectError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.progress import say
from lmeraser.pipeline.locks import compare, read_files, read_outs
from lmeraser.prove.home import load_or_create_project_id
from lmeraser.prove.keys import load_or_create_signer, signing_key_path

EVENT = "drill"
DICE = random.SystemRandom()  # nobody chooses who is erased, or what is restored


@dataclass(frozen=True)
class Round:
    """One restore. Attributes: stores: that were restored; back: erased people who were in the model or in the source then, and
    came_back: who still were after `reapply`. certified, deleted: what it did. clean: the scan of all stores afterwards; equal:
    every artifact is the file that it was before the restore."""

    stores: tuple[str, ...]
    back: int
    came_back: int
    certified: int
    deleted: int
    clean: bool
    equal: bool
    seconds: float


@dataclass(frozen=True)
class DrillReport:
    """Attributes: erased: people; rounds: in their order."""

    erased: int
    rounds: tuple[Round, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return self.counts() | {"rounds": [asdict(restored) | {"stores": list(restored.stores)} for restored in self.rounds]}

    def counts(self) -> dict[str, Any]:
        """Without the single rounds, as an event has it."""
        return {
            "erased": self.erased,
            "restores": len(self.rounds),
            "back_before": sum(restored.back for restored in self.rounds),
            "came_back": sum(restored.came_back for restored in self.rounds),
            "clean": all(restored.clean and not restored.came_back for restored in self.rounds),
            "equal": all(restored.equal for restored in self.rounds),
            "seconds": round(self.seconds, 1),
        }


def drill(project: Project, erase: int, restores: int, keep: Path | None = None) -> tuple[DrillReport, Path]:
    """Restore each store alone, all of them, and `restores` times some at random. Returns the report, and its file.

    Args: erase: how many people, drawn at random; keep: a new folder in which the copy stays, with everybody's records.
    Raises: BadInputError; ProjectError if the project is not whole or current; StepFailedError.
    """
    if erase < 1 or restores < 0:
        raise BadInputError("--erase is at least 1 and --restores at least 0; correct them and retry")
    if keep is not None and (keep.exists() or keep.absolute().is_relative_to(project.layout.root.absolute())):
        raise BadInputError("--keep names a folder that exists or lies in the project; name a new one outside it")
    with ExitStack() as stack:
        if keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=AUDIT)))
            mark_audit(folder, project.layout)  # so that a purge knows whose it is, should we be killed
        else:
            keep.mkdir(mode=0o700)
            folder = keep.absolute()
        with workspace(project):
            _require_whole(project)
            copy = copy_project(project, folder)
        with apart(folder):
            report = _drill_in(copy, erase, restores)
    path = project.layout.private_state / "drills" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
    write_atomically(path, readable_json(report.to_json()), mode=0o600)
    project.ledger.note(None, EVENT, report.counts())
    return report, path


def _require_whole(project: Project) -> None:
    dvc.require_current(project.layout, whole=True)
    waiting = len(project.ledger.all(open_only=True))
    if waiting:
        raise ProjectError(f"{waiting} requests are open; finish them with `lmeraser resume`, then drill")


def _drill_in(copy: Copy, erase: int, restores: int) -> DrillReport:
    start = time.monotonic()
    build(copy.layout)  # its source may lie elsewhere now
    _make_keys(copy.layout)
    commit(copy.layout.root, "the copy")
    copy.back_up()
    say(f"drill: a backup of {', '.join(copy.places)}; {erase} people are erased")
    people = _erase(copy.layout, erase)
    commit(copy.layout.root, "erased")
    made = read_outs(copy.layout.lock)
    rounds = []
    for stores in _choices(list(copy.places), restores):
        rounds.append(_restore(copy, stores, people, made))
        done = rounds[-1]
        say(f"drill: {', '.join(stores)} restored: {done.back} of {erase} were back, {done.came_back} after reapply")
    return DrillReport(erase, tuple(rounds), time.monotonic() - start)


def _make_keys(layout: Layout) -> None:
    """What a backup must have, or nothing of it can be restored: a project has it from its first request and certificate on."""
    project = Project(layout)
    project.ensure_subject_key()
    project.ledger.close()
    load_or_create_signer(signing_key_path(layout.private_state), layout.public_keys)
    load_or_create_project_id(layout.project_id)


def _choices(stores: Sequence[str], restores: int) -> list[tuple[str, ...]]:
    """What is restored in each round."""
    drawn = [DICE.sample(list(stores), DICE.randint(1, len(stores))) for _ in range(restores)]
    return [*((store,) for store in stores), tuple(stores), *(tuple(sorted(some)) for some in drawn)]


def _erase(layout: Layout, people: int) -> frozenset[str]:
    """Erase people drawn at random, a request each; returns their pseudonyms."""
    project = Project(layout)
    with workspace(project):
        project.ensure_subject_key()
        facts = project.roster(layout).facts
        public = set(facts.public["subject"].unique().to_pylist())
        private = sorted(set(facts.private["subject"].unique().to_pylist()) - public)
        if len(private) < people:
            raise BadInputError(f"--erase is {people}, but {len(private)} people can be erased; name fewer")
        ids = []
        for person in DICE.sample(private, people):
            request = intake.receive(project, [person], None, False)
            intake.accept(project, request, [person], solved=False)
            if intake.needs_approval(project, project.ledger.get(request.request_id)):
                intake.approve(project, request.request_id, "drill")
            ids.append(request.request_id)
        run_open(project)
        erased = {name for identity in ids for name in project.ledger.get(identity).pseudonyms}
    project.ledger.close()
    return frozenset(erased)


def _restore(copy: Copy, stores: tuple[str, ...], people: frozenset[str], made: dict[str, str]) -> Round:
    """Restore stores, reapply, and look."""
    start = time.monotonic()
    copy.keep_certificates()
    copy.restore(stores)
    project = Project(copy.layout)
    back = people_back(project, people).everybody
    with workspace(project):
        outcome = reapply(project, copy.kept)
        left = people_back(project, people).everybody
        # Where nothing was certified `reapply` itself read every store whole, and raised where something was left.
        clean = not outcome.finished or audit_stores(copy.layout).clean
    project.ledger.close()
    equal = read_outs(copy.layout.lock) == made and compare(made, read_files(copy.layout.root, made)).equal
    if TREE in stores:
        commit(copy.layout.root, "reapplied")
    deleted = sum(outcome.cleared.values())
    seconds = round(time.monotonic() - start, 2)
    return Round(stores, len(back), len(left), len(outcome.finished), deleted, clean, equal, seconds)
