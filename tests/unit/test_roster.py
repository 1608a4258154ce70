"""Who is in a state is asked once: facts are gathered and names hashed once for all requests that are looked at together."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import make_params, make_record, make_tree, png, refused

import flows.project
from flows.project import Project
from flows.requests import intake
from lmeraser.clusters.files import Member
from lmeraser.core.errors import BlockedError, ProjectError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.erase import roster as rosters
from lmeraser.erase.erased import ErasedList, SubjectKey
from lmeraser.erase.plan import Facts, make_plan
from lmeraser.erase.requests import Request
from lmeraser.erase.roster import Roster

PARAMS = make_params({"cluster.n_max": 3, "skeleton.leaves": 2, "parts": ["p00"]})
PEOPLE = [(f"person-{number}", "ill" if number < 3 else "healthy") for number in range(9)]


def facts() -> Facts:
    private = [make_record(name, label, "private", image=png(at)) for at, (name, label) in enumerate(PEOPLE)]
    public = [make_record(f"stock-{at}", label, "public", image=png(20 + at)) for at, label in enumerate(("one", "two"))]
    public.append(make_record("person-8", "one", "public", image=png(30)))
    members = [Member(record.id, record.sha256, record.label, record.subject, at % 2, "p00") for at, record in enumerate(private)]
    return Facts.of(PARAMS, public, private, members, make_tree(0, 2), ["c00", "c01"])


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every subject that was hashed."""
    subjects: list[str] = []
    whole = SubjectKey.pseudonym

    def counted(key: SubjectKey, subject: str) -> str:
        subjects.append(subject)
        return whole(key, subject)

    monkeypatch.setattr(SubjectKey, "pseudonym", counted)
    return subjects


KEY = SubjectKey(b"k" * 32)


def test_everybody_is_hashed_once_however_often_somebody_is_looked_for(hashed: list[str]) -> None:
    made = Roster(facts(), KEY)
    wanted = [KEY.pseudonym(f"person-{number}") for number in (4, 2)]
    hashed.clear()
    for _ in range(5):
        assert made.named(wanted) == ["person-2", "person-4"]
    assert sorted(hashed) == sorted({*dict(PEOPLE), "stock-0", "stock-1"})
    assert made.named([KEY.pseudonym("nobody")]) == []


def test_plan_is_the_one_that_make_plan_makes_and_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, calls = Roster(facts(), KEY), []

    def counted(subjects: tuple[str, ...], known: Facts, include_public: bool, *_: object) -> object:
        calls.append(subjects)
        return make_plan(subjects, known, include_public)

    monkeypatch.setattr(rosters, "make_plan", counted)
    wanted = {KEY.pseudonym("person-4")}
    assert made.plan(wanted, False) == made.plan(wanted, True) == make_plan(["person-4"], facts(), False)
    assert calls == [("person-4",)]


def test_plan_with_public_records_does_not_let_in_who_did_not_accept_them() -> None:
    made, wanted = Roster(facts(), KEY), {KEY.pseudonym("person-8")}
    assert made.plan(wanted, True).public_removed == 1
    refused(BlockedError, lambda: made.plan(wanted, False))


# A project's roster


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    made = Project(Layout(tmp_path / "project"))
    ErasedList(None, frozenset()).write(made.layout.erased)
    for file in files_of(made.layout):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"content")
    monkeypatch.setattr(flows.project, "load_params", lambda _: PARAMS)
    monkeypatch.setattr(Project, "params", PARAMS)
    made.ensure_subject_key()
    yield made
    made.ledger.close()


def files_of(layout: Layout) -> list[Path]:
    return [layout.params, layout.public, layout.part("p00"), layout.leaves("p00"), layout.skeleton, layout.sizes]


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> list[Layout]:
    """Where facts were gathered."""
    places: list[Layout] = []

    def counted(layout: Layout, _: Params) -> Facts:
        places.append(layout)
        return facts()

    monkeypatch.setattr(flows.project, "gather_facts", counted)
    return places


def test_copy_by_hard_links_is_the_same_state_and_is_not_gathered_again(
    project: Project, gathered: list[Layout], tmp_path: Path
) -> None:
    copy = Layout(tmp_path / "copy")
    for file, link in zip(files_of(project.layout), files_of(copy), strict=True):
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, link)
    assert project.roster(project.layout) is project.roster(copy) is project.roster(project.layout)
    assert len(gathered) == 1


@pytest.mark.parametrize("place", range(6))
def test_file_that_was_replaced_is_another_state(project: Project, gathered: list[Layout], place: int) -> None:
    before = project.roster(project.layout)
    file = files_of(project.layout)[place]
    draft = file.with_suffix(".draft")
    draft.write_bytes(b"CONTENT")  # of the same size, and of the same time
    os.utime(draft, ns=(file.stat().st_mtime_ns, file.stat().st_mtime_ns))
    draft.replace(file)
    assert project.roster(project.layout) is not before
    assert len(gathered) == 2


def test_what_was_gathered_while_the_state_changed_is_not_kept(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    skeleton = project.layout.skeleton
    kept = skeleton.with_name("kept")

    def gather(layout: Layout, _: Params) -> Facts:
        if not kept.exists():  # somebody builds meanwhile, and goes back to the old files
            os.link(skeleton, kept)
            skeleton.unlink()
            skeleton.write_bytes(b"another")
        return facts()

    monkeypatch.setattr(flows.project, "gather_facts", gather)
    mixed = project.roster(project.layout)
    kept.replace(skeleton)
    assert project.roster(project.layout) is not mixed


def test_one_forget_gathers_once_and_hashes_everybody_once(
    project: Project, gathered: list[Layout], hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.dvc.command.require_built", lambda _: None)
    monkeypatch.setattr(intake, "check_untracked", lambda *_: None)
    monkeypatch.setattr(intake, "refresh", lambda made, **_: made.roster(made.layout) and None)

    def accept(subject: str) -> Request:
        return intake.accept(project, intake.receive(project, [subject], None, False), [subject], solved=False)

    requests = [accept(f"person-{number}") for number in (4, 5, 6)]
    assert {request.state for request in requests} == {"quarantined"}
    assert intake.divide(project.roster(project.layout), requests) == (requests, [])
    assert len(gathered) == 1
    named = 2 * len(requests)  # when it is received, and when it is checked whether it is erased already
    assert len(hashed) == len({*dict(PEOPLE), "stock-0", "stock-1"}) + named


# The key


def test_key_is_made_for_the_first_request_and_only_read_afterwards(tmp_path: Path) -> None:
    project = Project(Layout(tmp_path))
    ErasedList(None, frozenset()).write(project.layout.erased)
    refused(ProjectError, project.subject_key)
    assert not project.key_file.exists()
    made = project.ensure_subject_key()
    assert stat.S_IMODE(project.key_file.stat().st_mode) == 0o600
    assert project.subject_key() == project.ensure_subject_key() == made
    project.ledger.receive("0b9e2c5e-6a0f-4a53-9a55-0c7f6d0a1b2c", [made.pseudonym("anna")], False, 30)
    project.key_file.unlink()
    refused(ProjectError, project.ensure_subject_key)
    assert not project.key_file.exists()
    project.ledger.close()
