"""What older releases wrote stays readable: ledgers, journals, lists and certificates, as tests/frozen/make.py left them."""

import json
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from flows.project import Project
from flows.purge import step as purge
from lmeraser.core.errors import VerificationError
from lmeraser.core.layout import Layout
from lmeraser.erase.erased import ErasedList, load_key
from lmeraser.erase.ledger import Ledger, sqlite_url
from lmeraser.erase.plan import Plan
from lmeraser.erase.states import reached
from lmeraser.pipeline.locks import read_outs
from lmeraser.prove.home import read_project_id
from lmeraser.prove.keys import load_public
from lmeraser.prove.verify import parse_head, verify_files
from lmeraser.serve.quarantine import read_quarantine

ARCHIVES = sorted((Path(__file__).parents[1] / "frozen").glob("*.tar.xz"))
OPEN = "00000000-0000-4000-8000-000000000002"
STATES = {  # what the ledger says where the name of the project does not
    "retraining": "removed",
    "recording": "removed",
    "clearing": "verified",
    "purging": "verified",
    "signed": "purged",
    "set-aside": "blocked",
    "together": "purged",
}


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def extracted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The frozen projects of a release; never change them."""
    folder = tmp_path_factory.mktemp("frozen")
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    return sorted(folder.iterdir())


@pytest.fixture
def frozen(extracted: list[Path], tmp_path: Path) -> list[Project]:
    """Copies of the frozen projects."""
    copies = [shutil.copytree(folder, tmp_path / folder.name) for folder in extracted]
    return [Project(Layout(folder)) for folder in copies]


def batch_ids(project: Project) -> list[str]:
    return sorted({request.batch_id for request in project.ledger.all() if request.batch_id})


def columns(project: Project) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(project.layout.private_state / "ledger.db")) as ledger:
        asked = "SELECT batch_id, plan, before, facts FROM batches ORDER BY batch_id"
        rows: list[tuple[str, ...]] = ledger.execute(asked).fetchall()
        return rows


def test_every_ledger_opens_with_its_requests_where_they_were_left_and_a_whole_chain(frozen: list[Project]) -> None:
    for project in frozen:
        name = project.layout.root.name
        assert project.ledger.get(OPEN).state == STATES.get(name, name)
        assert project.ledger.verify_chain() == project.ledger.head()[0] > 8


def test_an_event_of_an_old_ledger_that_somebody_rewrote_is_found(frozen: list[Project]) -> None:
    with closing(sqlite3.connect(frozen[0].layout.private_state / "ledger.db")) as ledger:
        ledger.executescript("DROP TRIGGER events_no_update; UPDATE events SET at = '2020-01-01T00:00:00+00:00' WHERE seq = 2")
    with pytest.raises(VerificationError, match="event 2 "):
        frozen[0].ledger.verify_chain()


def test_a_batch_that_is_read_and_stored_again_loses_nothing(frozen: list[Project]) -> None:
    assert any(len(columns(project)) == 2 for project in frozen)
    for project in frozen:
        before = columns(project)
        for batch_id in batch_ids(project):
            project.ledger.save_batch(project.ledger.get_batch(batch_id))
        assert columns(project) == before


def test_plans_of_old_batches_are_plans_of_today(frozen: list[Project]) -> None:
    for project in frozen:
        for _, plan, _, facts in columns(project):
            for text in (plan, *map(json.dumps, json.loads(facts)["plans"].values())):
                assert Plan.from_json(json.loads(text)).to_json() == json.loads(text)


def test_old_journals_are_remembered_and_are_written_as_they_were(frozen: list[Project]) -> None:
    for project in frozen:
        journals = sorted((project.layout.private_state / "purge").glob("*.json"))
        condemned: set[str] = set()
        for path in journals:
            written = path.read_bytes()
            condemned |= set(json.loads(written)["objects"])
            journal = purge.read_journal(project.layout, path.stem)
            assert journal is not None
            purge.write_journal(project.layout, path.stem, journal)
            assert path.read_bytes() == written
        assert condemned
        assert purge.remembered(project.layout).objects == condemned


def test_a_purge_that_was_killed_still_knows_what_it_must_not_find(frozen: list[Project]) -> None:
    killed = next(project for project in frozen if project.layout.root.name == "purging")
    batch_id = killed.ledger.get(OPEN).batch_id
    assert batch_id is not None
    search_terms = purge.kept_search_terms(killed.layout, batch_id)
    assert search_terms is not None
    assert search_terms.names
    assert search_terms.images
    path = next(killed.layout.private_state.glob("*.needles"))
    written = path.read_bytes()
    purge.keep_search_terms(killed.layout, batch_id, search_terms)
    assert path.read_bytes() == written


def test_old_certificates_verify_offline_up_to_their_head(frozen: list[Project]) -> None:
    for project in frozen:
        folder = project.layout.certificates
        head = parse_head((folder / "HEAD").read_text())
        paths = sorted(folder.glob("*.json"))
        verdict = verify_files(paths, load_public(project.layout.public_keys), head, read_project_id(project.layout.project_id))
        assert verdict.chain
        assert verdict.anchored
        certified = {request.request_id for request in project.ledger.all() if request.state == "certified"}
        assert certified <= {certificate.request_id for certificate in verdict.certificates}


def test_old_lists_and_keys_still_name_everybody_who_was_erased(frozen: list[Project]) -> None:
    for project in frozen:
        project.erased.check_key(load_key(project.key_file))
        begun = [request for request in project.ledger.all() if reached(request.reached, "removed")]
        erased = {pseudonym for request in begun for pseudonym in request.pseudonyms}
        assert erased == ErasedList.read(project.layout.erased).pseudonyms == ErasedList.remembered(project.layout).pseudonyms


def test_an_old_quarantine_still_leaves_clusters_out(frozen: list[Project]) -> None:
    quarantined = [project for project in frozen if project.ledger.get(OPEN).reached in ("quarantined", "removed", "retrained")]
    assert quarantined
    for project in quarantined:
        quarantine = read_quarantine(project.layout)
        assert quarantine is not None
        assert quarantine.slots


def test_old_copies_of_locks_are_whole(frozen: list[Project]) -> None:
    copies = [copy for project in frozen for copy in project.layout.private_state.glob("*.locks/dvc.lock")]
    assert copies
    for copy in copies:
        assert read_outs(copy)


def test_an_old_ledger_goes_on_once_the_lease_of_who_was_killed_has_run_out(frozen: list[Project]) -> None:
    project = next(project for project in frozen if project.layout.root.name == "removed")
    events = project.ledger.head()[0]
    old = Ledger.open(sqlite_url(project.layout.private_state / "ledger.db"))
    claim = old.claim("somebody", 60, ["removed"])
    assert [request.request_id for request in claim.requests] == [OPEN]
    old.move([OPEN], "retrained", claim)
    assert old.verify_chain() == events + 1
    old.close()
