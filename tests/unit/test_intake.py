"""Requests cannot hurt each other: all that are accepted can be carried out together; others are set aside with a way out."""

import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from builders import make_params, make_record, make_tree, png, refused
from hypothesis import given
from hypothesis import strategies as st

from flows.dvc import command as dvc
from flows.project import Project
from flows.requests import intake
from lmeraser.clusters.files import Member
from lmeraser.core.errors import BlockedError, ProjectError, RequestError
from lmeraser.core.layout import Layout
from lmeraser.data.records import Record
from lmeraser.erase.erased import ErasedList
from lmeraser.erase.plan import Facts, make_plan
from lmeraser.erase.requests import Request
from lmeraser.erase.roster import Roster
from lmeraser.erase.states import BLOCKED, REJECTED

PARAMS = make_params({"cluster.n_max": 3, "skeleton.leaves": 2})
PUBLIC = [("stock-1", "one"), ("stock-2", "two")]
People = Sequence[tuple[str, str]]  # name and label, one training record each


def facts_of(people: People, public: People = PUBLIC) -> Facts:
    def records(pairs: People, visibility: str) -> list[Record]:
        return [make_record(name, label, visibility, image=png(at)) for at, (name, label) in enumerate(pairs)]

    private = records(people, "private")
    members = [Member(record.id, record.sha256, record.label, record.subject, at % 2, "p00") for at, record in enumerate(private)]
    return Facts.of(PARAMS, records(public, "public"), private, members, make_tree(0, 2), ["c00", "c01"])


class World:
    """A project whose artifacts are facts in memory: the served copy's and, where it is another, the workspace's."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, served: People) -> None:
        self.project = Project(Layout(root))
        self.project.layout.erased.parent.mkdir()
        ErasedList(None, frozenset()).write(self.project.layout.erased)
        self.served = self.workspace = facts_of(served)
        self.stale = False
        copy = Layout(root / "copy")
        monkeypatch.setattr(Project, "params", PARAMS)
        monkeypatch.setattr(intake, "refresh", lambda *_, **__: None)
        monkeypatch.setattr(dvc, "require_built", lambda _: None)
        monkeypatch.setattr(dvc, "require_current", self._require_current)
        monkeypatch.setattr(intake, "whole_layout", lambda project: project.layout if self.served is self.workspace else copy)
        monkeypatch.setattr(Project, "roster", lambda _, layout: self.roster(self.served if layout == copy else self.workspace))

    def roster(self, facts: Facts) -> Roster:
        return Roster(facts, self.project.subject_key())

    def _require_current(self, _: Layout) -> None:
        if self.stale:
            raise ProjectError("the pipeline is not up to date")

    def submit(self, *people: str, include_public: bool = False) -> Request:
        request = intake.receive(self.project, people, str(uuid.uuid4()), include_public)
        return intake.take_effect(self.project, intake.validate(self.project, request, people), solved=False)

    def now(self, request: Request) -> Request:
        return self.project.ledger.get(request.request_id)


@contextmanager
def world(served: People) -> Iterator[World]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        made = World(Path(folder), patch, served)
        yield made
        made.project.ledger.close()


MANY = [(f"person-{number}", "healthy" if number > 2 else "ill") for number in range(8)]


def test_who_would_leave_one_label_is_set_aside_and_the_others_are_accepted() -> None:
    with world(MANY) as made:
        first, second, third = (made.submit(f"person-{number}") for number in range(3))
        fourth = made.submit("person-5")
        assert [request.state for request in (first, second, third, fourth)] == [
            "quarantined",
            "quarantined",
            BLOCKED,
            "quarantined",
        ]
        assert "one class" in (third.reason or "")
        assert "lmeraser cancel" in (third.reason or "")
        refused(BlockedError, lambda: intake.refuse(third))


def test_what_was_set_aside_is_taken_up_when_records_were_added_or_ended_by_a_command() -> None:
    with world(MANY) as made:
        third = [made.submit(f"person-{number}") for number in range(3)][-1]
        intake.take_up_again(made.project)
        assert made.now(third).state == BLOCKED
        made.served = made.workspace = facts_of([*MANY, ("newcomer", "ill")])
        intake.take_up_again(made.project)
        assert made.now(third).state == "received"
        assert intake.validate(made.project, made.now(third)).state == "validated"
        other = made.submit("person-6")
        assert intake.cancel(made.project, other.request_id).state == REJECTED
        assert [event.kind for event in made.project.ledger.events(other.request_id)][-1] == REJECTED
        refused(RequestError, lambda: intake.cancel(made.project, other.request_id))


def test_a_request_that_was_begun_cannot_be_cancelled() -> None:
    with world(MANY) as made:
        request = made.submit("person-4")
        made.project.ledger.move([request.request_id], "removed")
        refused(RequestError, lambda: intake.cancel(made.project, request.request_id))
        assert made.now(request).state == "removed"


def test_who_gained_public_records_after_acceptance_does_not_keep_others() -> None:
    with world(MANY) as made:
        early, harmless = made.submit("person-4"), made.submit("person-5")
        facts = facts_of(MANY, [*PUBLIC, ("person-4", "one")])
        fit, culprits = intake.divide(made.roster(facts), [early, harmless])
        assert [request.request_id for request in fit] == [harmless.request_id]
        assert [request.request_id for request, _ in culprits] == [early.request_id]
        assert "public records" in culprits[0][1]


@pytest.mark.slow
@given(
    st.lists(st.sampled_from(["ill", "healthy", "well"]), min_size=2, max_size=9),
    st.permutations(range(9)),
    st.lists(st.integers(1, 3), min_size=1, max_size=6),
)
def test_all_that_are_accepted_can_be_carried_out_together(labels: list[str], order: list[int], sizes: list[int]) -> None:
    people = [(f"person-{number}", label) for number, label in enumerate(labels)]
    waiting = [f"person-{number}" for number in order if number < len(people)]
    with world(people) as made:
        accepted: list[str] = []
        for size in sizes:
            names, waiting = waiting[:size], waiting[size:]
            if not names:
                break
            request = made.submit(*names)
            if request.state == "quarantined":
                accepted += names
                make_plan(accepted, made.workspace, include_public=False)  # raises if they could not
            else:
                assert request.state in (BLOCKED, REJECTED)
                with pytest.raises(RequestError):
                    make_plan([*accepted, *names], made.workspace, include_public=False)
                alone = request.state == REJECTED
                if alone:
                    with pytest.raises(RequestError):
                        make_plan(names, made.workspace, include_public=False)
        requests = made.project.ledger.all(open_only=True)
        assert intake.divide(made.roster(made.workspace), requests) == (requests, [])


def test_a_person_of_the_workspace_is_not_unknown_while_another_copy_is_served() -> None:
    with world(MANY) as made:
        made.submit("person-3")
        made.workspace = facts_of([*MANY, ("newcomer", "ill")])
        late = intake.receive(made.project, ["newcomer"], None, False)
        refused(ProjectError, lambda: intake.validate(made.project, late, ["newcomer"]))
        assert made.now(late).state == "received"
        made.served = made.workspace
        assert intake.validate(made.project, made.now(late)).state == "validated"


def test_stranger_waits_for_an_erasure_that_is_under_way_and_nobody_is_told_to_build_meanwhile() -> None:
    with world(MANY) as made:
        begun = made.submit("person-5")
        made.stale = True
        assert "not up to date" in refused(ProjectError, lambda: made.submit("nobody"))
        made.project.ledger.move([begun.request_id], "removed")
        line = refused(ProjectError, lambda: made.submit("nobody"))
        assert "an erasure is under way" in line
        assert "dvc repro" not in line


def test_unknown_people_are_rejected_only_where_everything_that_is_there_was_built() -> None:
    with world(MANY) as made:
        made.submit("person-3")
        made.workspace = facts_of([*MANY, ("newcomer", "ill")])
        made.stale = True
        request = intake.receive(made.project, ["nobody"], None, False)
        refused(ProjectError, lambda: intake.validate(made.project, request, ["nobody"]))
        made.stale = False
        assert intake.validate(made.project, made.now(request), ["nobody"]).state == REJECTED


def test_request_whose_certificate_would_be_too_large_is_rejected_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with world(MANY) as made:
        monkeypatch.setattr("lmeraser.prove.verify.MAX_BYTES", 1000)
        request = made.submit("person-4")
        assert request.state == REJECTED
        assert "put fewer people into one request" in (request.reason or "")
