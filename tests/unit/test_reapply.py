"""After a restore nobody who was erased is back once `lmeraser reapply` is done, whatever was restored; and what it refuses."""

import base64
import json
import random
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from builders import contents
from fake_pipeline import CANARY, FakePipeline, fakes
from histories import search_terms_of
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kills import killing
from restoring import EVERYTHING, STORES, Backup, keep_certificates

from lmeraser.data.records import read_records
from lmeraser.erase.erased import ErasedList
from lmeraser.prove.certificate import read_chain, read_head
from lmeraser.prove.keys import load_public

PERSON, OTHER, THIRD = (f"{CANARY}-{number}" for number in (2, 3, 5))
BACK = {"artifacts", "working tree", "all"}  # restores that bring people back into the model


@dataclass(frozen=True)
class Restorable:
    """A project from which OTHER was erased, then backed up, and then PERSON was erased.

    Attributes: request_id: of the later erasure; kept: certificates elsewhere.
    """

    pipeline: FakePipeline
    backup: Backup
    kept: Path
    request_id: str

    def copy(self, folder: Path) -> "Restorable":
        return Restorable(self.pipeline.copy(folder), self.backup, self.kept, self.request_id)

    def reapply(self) -> dict[str, Any]:
        return self.pipeline.json("reapply", "--certificates", str(self.kept))


def make_restorable(folder: Path, **changes: Any) -> Restorable:
    pipeline = FakePipeline.build(folder / "built", **changes)
    pipeline.forget(OTHER)
    backup = Backup.of(pipeline, folder / "backup")
    request = pipeline.forget(PERSON)
    return Restorable(pipeline, backup, keep_certificates(pipeline, folder / "kept"), request.request_id)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Restorable:
    """Never change it, take `restorable`."""
    folder = tmp_path_factory.mktemp("restorable")
    with fakes(folder):
        return make_restorable(folder)


@pytest.fixture
def restorable(prepared: Restorable, temporary: Path) -> Restorable:
    return prepared.copy(temporary / "fake")


def subjects(pipeline: FakePipeline) -> set[str]:
    """Everybody in the records of the model."""
    return {record.subject for path in sorted(pipeline.layout.private.glob("*.parquet")) for record in read_records(path)}


def traces(pipeline: FakePipeline, *people: str) -> list[str]:
    """Files outside the source that hold something of people."""
    terms = search_terms_of(frozenset(people))
    files = contents(pipeline.root.parent).items()
    return [name for name, data in files if not name.startswith("project/people/") and any(term in data for term in terms)]


def statements(pipeline: FakePipeline) -> list[dict[str, Any]]:
    """What each certificate says, oldest first."""
    paths = sorted(pipeline.layout.certificates.glob("*.json"))
    return [json.loads(base64.b64decode(json.loads(path.read_bytes())["payload"]))["predicate"] for path in paths]


def repeated(statement: dict[str, Any]) -> list[str]:
    return [check["result"] for check in statement["checks"] if check["check"] == "repeats the erasures of requests"]


def require_nobody_back(pipeline: FakePipeline, *people: str) -> None:
    """No record, no trace in any store, a current pipeline, a whole chain that the ledger knows, and the list names them."""
    assert subjects(pipeline).isdisjoint(people)
    assert traces(pipeline, *people) == []
    assert pipeline.status() == {}
    layout = pipeline.layout
    with pipeline.process() as project:
        key = project.subject_key()
        project.ledger.verify_chain()
        requests = project.ledger.all()
    assert all(not request.is_open for request in requests)
    chain = read_chain(layout.certificates, load_public(layout.public_keys))
    assert {certificate.request_id for certificate in chain} == {
        request.request_id for request in requests if request.state == "certified"
    }
    assert read_head(layout.certificates) == (chain[-1].head if chain else None)
    assert ErasedList.read(layout.erased).pseudonyms == {key.pseudonym(person) for person in people}
    assert pipeline.json("status").keys() == {"requests", "late"}


# What comes back


@pytest.mark.parametrize("store", [*STORES, "all"])
def test_a_restored_backup_of_one_store_or_all_brings_nobody_back(store: str, restorable: Restorable) -> None:
    pipeline = restorable.pipeline
    restorable.backup.restore(pipeline, EVERYTHING if store == "all" else [store])
    outcome = restorable.reapply()
    require_nobody_back(pipeline, PERSON, OTHER)
    assert outcome["back_in_records"] == (store in BACK)
    assert outcome["repeats"] == ([restorable.request_id] if store in BACK else [])
    signed = statements(pipeline)
    assert len(signed) == 2 + (store in BACK)
    if store in BACK:
        assert repeated(signed[-1]) == [restorable.request_id]
        assert signed[-1]["request_id"] != restorable.request_id
    assert pipeline.json("audit", "--stores")["clean"]


def test_a_second_reapply_does_and_signs_nothing(restorable: Restorable) -> None:
    restorable.backup.restore(restorable.pipeline)
    assert restorable.reapply()["restored"]
    before = contents(restorable.pipeline.layout.certificates)
    assert not restorable.reapply()["restored"]
    assert contents(restorable.pipeline.layout.certificates) == before
    status, output, _ = restorable.pipeline.command("reapply")
    assert status == 0
    assert "nothing was signed" in output


def test_a_restored_source_that_erasures_clear_is_cleared_again(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    with fakes(tmp_path / "temporary"):
        made = make_restorable(tmp_path, source={"erase": True})
        manifest = made.pipeline.root / "people" / "manifest.csv"
        assert PERSON not in manifest.read_text()
        made.backup.restore(made.pipeline, ["source"])
        assert PERSON in manifest.read_text()
        outcome = made.reapply()
        assert (outcome["back_in_records"], outcome["back_in_source"]) == (0, 1)
        assert PERSON not in manifest.read_text()
        require_nobody_back(made.pipeline, PERSON, OTHER)
        assert repeated(statements(made.pipeline)[-1]) == [made.request_id]


def test_what_repeats_erasures_waits_for_no_second_approval(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    with fakes(tmp_path / "temporary"):
        pipeline = FakePipeline.build(tmp_path / "built", service={"approval": True})
        backup = Backup.of(pipeline, tmp_path / "backup")
        request = pipeline.submit(PERSON)
        pipeline.json("approve", request.request_id, "--by", "officer")
        pipeline.resume()
        kept = keep_certificates(pipeline, tmp_path / "kept")
        backup.restore(pipeline, ["artifacts", "locks", "list", "cache"])
        assert pipeline.json("reapply", "--certificates", str(kept))["back_in_records"] == 1
        require_nobody_back(pipeline, PERSON)
        assert pipeline.submit(OTHER).state == "validated", "others still wait"


def test_people_are_out_of_what_is_served_before_anything_is_retrained(
    restorable: Restorable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from histories import served_ids, training_ids

    from flows.requests import coordinator
    from flows.restore import reapply as module
    from flows.restore.stores import Cleared

    served: list[set[str]] = []

    def look(*_: Any, **__: Any) -> list[Any]:
        served.append(served_ids(restorable.pipeline))
        return []

    monkeypatch.setattr(coordinator, "run_open", look)
    restorable.backup.restore(restorable.pipeline)
    monkeypatch.setattr(module, "clear_stores", lambda _: Cleared({}, 0))
    restorable.reapply()
    assert served
    assert not served[0] & training_ids((PERSON,))


# The ledger and the chain


def test_a_restored_old_ledger_is_told_and_goes_on_behind_the_newest_certificate(restorable: Restorable) -> None:
    pipeline = restorable.pipeline
    restorable.backup.restore(pipeline, ["ledger"])
    assert "the ledger is older than the certificates (1 of 2)" in pipeline.json("status")["restored"]
    outcome = pipeline.json("reapply")
    assert outcome["requests_restored"] == [restorable.request_id]
    assert pipeline.request(restorable.request_id).state == "certified"
    assert pipeline.json("forget", "--subject", PERSON, "--request-id", restorable.request_id)["state"] == "certified"
    pipeline.forget(THIRD)
    require_nobody_back(pipeline, PERSON, OTHER, THIRD)
    assert [statement["sequence"] for statement in statements(pipeline)] == [1, 2, 3]


def test_a_request_that_was_open_in_the_backup_and_is_certified_since_is_not_done_twice(
    restorable: Restorable, tmp_path: Path
) -> None:
    pipeline = restorable.pipeline
    request = pipeline.submit(THIRD)
    backup = Backup.of(pipeline, tmp_path / "open")
    pipeline.resume()
    backup.restore(pipeline, ["private state"])
    assert pipeline.request(request.request_id).is_open
    assert pipeline.json("reapply")["certified"] == []
    assert pipeline.request(request.request_id).state == "certified"
    assert len(statements(pipeline)) == 3
    require_nobody_back(pipeline, PERSON, OTHER, THIRD)


def test_certificates_that_were_lost_with_the_backup_are_told_of(restorable: Restorable) -> None:
    pipeline = restorable.pipeline
    head = f"2:{read_chain(restorable.kept, load_public(pipeline.layout.public_keys))[-1].digest}"
    restorable.backup.restore(pipeline)
    assert "names certificate 2, the newest that is known here is 1" in pipeline.refused(2, "reapply", "--head", head)
    outcome = pipeline.json("reapply", "--head", head, "--certificates", str(restorable.kept))
    assert outcome["certificates_restored"] == 1
    require_nobody_back(pipeline, PERSON, OTHER)


def test_certificates_older_than_the_ledger_are_told_of(restorable: Restorable) -> None:
    restorable.backup.restore(restorable.pipeline, ["certificates"])
    assert "certificates/ is older than the ledger (1 of 2)" in restorable.pipeline.json("status")["restored"]
    assert "the ledger names certificate 2" in restorable.pipeline.refused(2, "reapply")


def test_a_fork_is_refused_and_nothing_is_changed(restorable: Restorable) -> None:
    """A project that went on from its backup without `reapply` told two stories behind one certificate."""
    pipeline = restorable.pipeline
    restorable.backup.restore(pipeline)
    pipeline.forget(THIRD)
    before = contents(pipeline.root)
    line = pipeline.refused(1, "reapply", "--certificates", str(restorable.kept))
    assert "two different ones behind the same certificate" in line
    assert {name: data for name, data in contents(pipeline.root).items() if ".db" not in name} == {
        name: data for name, data in before.items() if ".db" not in name
    }


# What is refused


def test_lost_or_other_subject_key_is_refused_with_what_to_do(restorable: Restorable) -> None:
    pipeline = restorable.pipeline
    key = pipeline.layout.private_state / "subject.key"
    secret = key.read_bytes()
    restorable.backup.restore(pipeline)
    key.unlink()
    assert "restore it from your backup" in pipeline.refused(2, "reapply", "--certificates", str(restorable.kept))
    key.write_bytes(secret[::-1])
    key.chmod(0o600)
    assert "restore" in pipeline.refused(2, "reapply", "--certificates", str(restorable.kept))
    for name in ("data/erased.json", ".lmeraser/erased.json"):  # certificates alone tell of another key
        ErasedList(None, frozenset()).write(pipeline.root / name)
    assert "restore that key from your backup" in pipeline.refused(2, "reapply", "--certificates", str(restorable.kept))


def test_backup_from_before_the_first_request_is_refused_until_keys_and_id_are_back(
    restorable: Restorable, tmp_path: Path
) -> None:
    pipeline, newest = restorable.pipeline, tmp_path / "newest"
    shutil.copytree(pipeline.root, newest)
    for name in (".lmeraser", "certificates"):
        shutil.rmtree(pipeline.root / name)
    for name in ("certificate-keys.pem", "project-id"):
        (pipeline.root / "data" / name).unlink()
    ErasedList(None, frozenset()).write(pipeline.layout.erased)
    arguments = ("reapply", "--certificates", str(restorable.kept))
    assert "restore data/certificate-keys.pem from git" in pipeline.refused(2, *arguments)
    shutil.copy2(newest / "data" / "certificate-keys.pem", pipeline.root / "data")
    assert "restore data/project-id" in pipeline.refused(2, *arguments)
    shutil.copy2(newest / "data" / "project-id", pipeline.root / "data")
    assert "the subject key subject.key is missing" in pipeline.refused(2, *arguments)
    assert not pipeline.layout.certificates.exists(), "nothing is taken in before the key is there"
    for name in ("subject.key", "certificate.key"):
        shutil.copy2(newest / ".lmeraser" / name, pipeline.layout.private_state)
    pipeline.json(*arguments)
    require_nobody_back(pipeline, PERSON, OTHER)


def test_certificates_of_another_project_and_no_folder_are_refused(restorable: Restorable, tmp_path: Path) -> None:
    pipeline = restorable.pipeline
    assert "no such folder" in pipeline.refused(2, "reapply", "--certificates", str(tmp_path / "nothing"))
    (pipeline.root / "data" / "project-id").write_text("0" * 16 + "\n")
    assert "it belongs to another chain" in pipeline.refused(1, "reapply", "--certificates", str(restorable.kept))


def test_nobody_is_named_in_what_is_told_and_kept(restorable: Restorable) -> None:
    pipeline = restorable.pipeline
    restorable.backup.restore(pipeline)
    status, output, complaint = pipeline.command("reapply", "--certificates", str(restorable.kept), "--json")
    assert status == 0
    with pipeline.process() as project:
        told = output + complaint + json.dumps([event.data for event in project.ledger.events()])
        pseudonyms = [project.subject_key().pseudonym(person) for person in (PERSON, OTHER)]
    assert CANARY not in told
    assert not [name for name in pseudonyms if name in told]


# Kills, and whatever order things come in


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95])
def test_killed_anywhere_and_repeated_it_ends_where_an_undisturbed_one_ends(
    share: float, prepared: Restorable, tmp_path: Path
) -> None:
    (tmp_path / "temporary").mkdir()
    with fakes(tmp_path / "temporary"):
        made = prepared.copy(tmp_path / "fake")
        made.backup.restore(made.pipeline)
        writes = 230  # about as many as a reapply has
        with killing(made.pipeline.root.parent, 1 + int(share * writes)) as kill:
            made.reapply()
        assert kill.dead, kill.writes
        made.reapply()
        require_nobody_back(made.pipeline, PERSON, OTHER)
        signed = statements(made.pipeline)
        assert len(signed) == 3, "one repeat, whatever was killed"
        assert repeated(signed[-1]) == [prepared.request_id]


ACTIONS = st.one_of(
    st.just("erase"),
    st.just("back up"),
    st.sets(st.sampled_from(EVERYTHING), min_size=1).map(sorted).map(tuple),
)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=[Phase.generate])
@given(st.lists(ACTIONS, min_size=3, max_size=6))
def test_whatever_is_erased_backed_up_and_restored_nobody_is_back_after_reapply(
    prepared: Restorable, tmp_path_factory: pytest.TempPathFactory, actions: list[str | tuple[str, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("history")
    (folder / "temporary").mkdir()
    with fakes(folder / "temporary") as patch:
        dice = random.Random(1)  # other ids than those of the prepared project
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=dice.getrandbits(128), version=4))
        made = prepared.copy(folder / "fake")
        pipeline, backup, kept = made.pipeline, made.backup, keep_certificates(made.pipeline, folder / "kept")
        erased, free = [PERSON, OTHER], [THIRD, f"{CANARY}-4", f"{CANARY}-test"]
        for place, action in enumerate(actions):
            if action == "erase" and free:
                erased.append(free.pop(0))
                assert pipeline.forget(erased[-1]).state == "certified"
            elif action == "back up":
                backup = Backup.of(pipeline, folder / f"backup-{place}")
            elif isinstance(action, tuple):
                backup.restore(pipeline, action)
                pipeline.json("reapply", "--certificates", str(kept))
                require_nobody_back(pipeline, *erased)
            keep_certificates(pipeline, kept)
    shutil.rmtree(folder)


@pytest.mark.parametrize("restores", [("private state", "remote"), ("private state+remote+artifacts",)], ids=["purge", "request"])
def test_what_no_lineage_tells_of_any_more_is_purged_by_what_the_scan_sees(
    restores: tuple[str, ...], restorable: Restorable
) -> None:
    """With the journals restored, a run entry alone names the members of a cluster: no version tells what they were made of."""
    pipeline = restorable.pipeline
    for stores in restores:
        restorable.backup.restore(pipeline, stores.split("+"))
        restorable.reapply()
        require_nobody_back(pipeline, PERSON, OTHER)


def restore_at_random(prepared: Restorable, folder: Path, seed: int, count: int) -> int:
    """Restore some stores, reapply and look, so many times; returns how many restores had brought somebody back."""
    (folder / "temporary").mkdir()
    with fakes(folder / "temporary") as patch:
        dice = random.Random(seed)
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=dice.getrandbits(128), version=4))
        made, back = prepared.copy(folder / "fake"), 0
        for _ in range(count):
            keep_certificates(made.pipeline, folder / "kept")
            made.backup.restore(made.pipeline, dice.sample(EVERYTHING, dice.randint(1, len(EVERYTHING))))
            back += made.pipeline.json("reapply", "--certificates", str(folder / "kept"))["back_in_records"]
            require_nobody_back(made.pipeline, PERSON, OTHER)
        return back


@pytest.mark.campaign("50 restores take half a minute a seed; the properties above try some in `make test`")
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_fifty_random_restores_bring_nobody_back(seed: int, prepared: Restorable, tmp_path: Path) -> None:
    back = restore_at_random(prepared, tmp_path, seed, 50)
    assert back > 10, "too few restores brought anybody back"
    print(f"50 restores, {back} of them brought somebody back, nobody after reapply")
