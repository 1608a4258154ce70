"""A step trusts the working tree, not the ledger's word: what git or dvc undid is done again, or refused with what to do."""

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import example_plan, make_params, refused
from hypothesis import given
from hypothesis import strategies as st

from flows.dvc import command as dvc
from flows.project import Project
from flows.requests import ground
from lmeraser.core.errors import ProjectError, StepFailedError, VerificationError
from lmeraser.core.layout import Layout
from lmeraser.erase.batches import BatchRecord
from lmeraser.erase.erased import ErasedList
from lmeraser.erase.ledger import Claim
from lmeraser.erase.requests import Request
from lmeraser.erase.states import WAY

LOCK = "schema: '2.0'\nstages:\n  split:\n    outs: [{{path: artifacts/split/private, md5: {}}}]\n"
STATES = ("removed", "retrained", "verified", "purged")
UNDONE = {"split": [{"changed deps": {"data/erased.json": "modified"}}]}
FOREIGN: list[dict[str, Any]] = [
    {"split": [{"changed deps": {"people": "modified"}}]},
    {"tune@c03": [{"changed deps": {"params.yaml": {"tune.epochs": "modified"}}}]},
    {"embed@p00": [{"changed deps": {"lmeraser/core/digest.py": "modified"}}], **UNDONE},
    {"head": ["changed command"]},
]


class Scene:
    """One request that a ledger says to be at a state, over locks and a list that are plain files."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.project = Project(Layout(root))
        layout = self.project.layout
        layout.erased.parent.mkdir()
        (root / "dvc.yaml").touch()
        self.stale: dict[str, Any] = {}
        self.lock("before")
        ErasedList(None, frozenset()).write(layout.erased)
        patch.setattr(Project, "params", make_params({}))
        patch.setattr(dvc, "status", lambda _: self.stale)
        patch.setattr(ground, "refresh", lambda *_, **__: None)
        self.pseudonym = self.project.ensure_subject_key().pseudonym("anna")
        identity = str(uuid.uuid4())
        self.project.ledger.receive(identity, [self.pseudonym], False, 30)
        for state in ("validated", "quarantined"):
            self.project.ledger.move([identity], state)
        self.claim: Claim = self.project.ledger.claim("me", 60, ["quarantined"])
        self.batch = self.project.ledger.open_batch(self.claim, [identity], BatchRecord(example_plan(), {}))
        self.identity = identity

    def lock(self, content: str) -> None:
        self.project.layout.lock.write_text(LOCK.format(content))

    def reach(self, state: str) -> None:
        """Take the way up to a state as the steps do: list, locks, ground."""
        ground.keep_out(self.project, [self.request])
        for step in WAY[WAY.index("removed") : WAY.index(state) + 1]:
            if step == "retrained":
                self.lock("without her")
            if step != "removed":
                self.batch = ground.record(self.project, self.batch)
            self.project.ledger.move([self.identity], step, self.claim)

    @property
    def request(self) -> Request:
        return self.project.ledger.get(self.identity)

    @property
    def listed(self) -> bool:
        return self.pseudonym in ErasedList.read(self.project.layout.erased).pseudonyms

    def realign(self, by_person: bool = False) -> None:
        self.batch = ground.realign(self.project, self.batch, [self.request], self.claim, by_person)

    def reset(self, lock: str = "before", listed: bool = False) -> None:
        """What `git reset --hard && dvc checkout` leaves: an older lock, an older list."""
        self.lock(lock)
        if not listed:
            ErasedList(None, frozenset()).write(self.project.layout.erased)


@contextmanager
def scene() -> Iterator[Scene]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        made = Scene(Path(folder), patch)
        yield made
        made.project.ledger.close()


@pytest.mark.parametrize("state", STATES)
def test_nothing_moved_nothing_is_done_again(state: str) -> None:
    with scene() as made:
        made.reach(state)
        made.realign()
        assert made.request.state == state
        assert not made.batch.moved


@pytest.mark.parametrize("state", STATES)
def test_what_git_undid_is_set_back_and_the_person_is_on_the_list_again(state: str) -> None:
    with scene() as made:
        made.reach(state)
        made.reset()
        made.stale = UNDONE
        made.realign()
        assert made.listed
        assert made.request.state == "removed"
        assert [event.kind for event in made.project.ledger.events(made.identity)].count("set back") == (state != "removed")


@pytest.mark.parametrize("state", STATES[1:])
def test_state_that_somebody_brought_up_to_date_is_verified_again(state: str) -> None:
    with scene() as made:
        made.reach(state)
        made.lock("without her, and with newcomers")  # `dvc repro` after rows were added
        made.realign()
        assert made.request.state == "retrained"
        assert made.batch.moved


@pytest.mark.parametrize("foreign", FOREIGN, ids=str)
@pytest.mark.parametrize("state", STATES)
def test_change_that_is_not_the_batchs_is_refused_with_both_ways_out(state: str, foreign: dict[str, Any]) -> None:
    with scene() as made:
        made.reach(state)
        made.reset()
        made.stale = foreign
        line = refused(ProjectError, made.realign)
        assert "undo that, or run `dvc repro`" in line
        assert "lmeraser resume" in line
        assert made.listed  # whatever the person at the terminal does next keeps her out
        assert made.request.state == state


@pytest.mark.parametrize("foreign", FOREIGN, ids=str)
@pytest.mark.parametrize("state", STATES[1:])
def test_nothing_is_signed_over_an_edit_that_no_lock_shows_yet(state: str, foreign: dict[str, Any]) -> None:
    with scene() as made:
        made.reach(state)
        made.stale = foreign
        assert "undo that, or run `dvc repro`" in refused(ProjectError, made.realign)
        assert made.request.state == state
        made.stale = {}  # undone
        made.realign()
        assert made.request.state == state


@pytest.mark.parametrize("state", STATES[1:])
def test_files_that_are_gone_while_nothing_changed_are_told_as_such(state: str) -> None:
    with scene() as made:
        made.reach(state)
        made.lock("elsewhere")
        made.stale = {"tune@c03": [{"changed outs": {"artifacts/tune/c03.safetensors": "deleted"}}]}
        assert "dvc checkout" in refused(ProjectError, made.realign)


def test_source_that_the_batch_itself_cleared_is_no_foreign_change() -> None:
    stale = {"split": [{"changed deps": {"people": "modified"}}]}
    assert ground.foreign_changes(stale) == ["split"]
    assert ground.foreign_changes(stale, "people") == []


OWN = st.sampled_from(["data/erased.json", "artifacts/split/private", "artifacts/tune/c03.safetensors", "metrics/metrics.json"])
OTHER = st.sampled_from(
    ["people", "params.yaml", "lmeraser/core", "stages/split.py", "artifactsy", "data/digits.csv", "/data/people"]
)
KINDS = st.sampled_from(["changed deps", "changed outs"])


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.tuples(KINDS, st.sets(OWN, min_size=1), st.sets(OTHER)), max_size=3)))
def test_a_change_is_the_batchs_own_only_if_every_place_is(drawn: dict[str, list[tuple[str, set[str], set[str]]]]) -> None:
    stale = {
        stage: [{kind: dict.fromkeys(own | other, "modified")} for kind, own, other in reasons]
        for stage, reasons in drawn.items()
    }
    foreign = {stage for stage, reasons in drawn.items() if any(other for _, _, other in reasons)}
    assert set(ground.foreign_changes(stale)) == foreign


def test_nothing_is_destroyed_or_signed_on_a_ground_that_moved() -> None:
    with scene() as made:
        made.reach("verified")
        ground.require_ground(made.project, made.batch)
        ground.require_listed(made.project, [made.request])
        made.lock("other")
        refused(StepFailedError, lambda: ground.require_ground(made.project, made.batch))
        made.lock("without her")
        ground.require_ground(made.project, made.batch)
        made.reset("without her")
        refused(StepFailedError, lambda: ground.require_ground(made.project, made.batch))
        refused(VerificationError, lambda: ground.require_listed(made.project, [made.request]))


@given(st.sampled_from(STATES), st.lists(st.sampled_from(["reset", "stash", "branch", "repro", "none"]), max_size=5))
def test_no_step_goes_on_while_somebody_of_the_batch_is_off_the_list(state: str, moves: list[str]) -> None:
    with scene() as made:
        made.reach(state)
        for move in moves:
            if move in ("reset", "branch"):
                made.reset(move)
                made.stale = UNDONE
            elif move == "stash":
                made.reset("without her")
                made.stale = UNDONE
            elif move == "repro":
                made.stale = {}
            made.realign()
            assert made.listed
            assert made.pseudonym in ErasedList.remembered(made.project.layout).pseudonyms


def test_whoever_the_ledger_says_to_be_erased_is_told_and_put_back_though_the_machines_memory_is_gone() -> None:
    with scene() as made:
        assert ground.missing_from_branch(made.project) == 0
        made.reach("verified")
        made.reset()
        made.project.layout.erased_memory.unlink()
        assert ground.missing_from_branch(made.project) == 1
        ground.keep_list(made.project)
        assert made.listed
        assert ground.missing_from_branch(made.project) == 0


def test_what_was_not_planned_stands_only_once_a_person_asked_again() -> None:
    with scene() as made:
        made.reach("retrained")
        made.batch = replace(made.batch, unplanned=True)
        made.realign()
        assert not made.batch.moved
        made.realign(by_person=True)
        assert made.batch.moved
