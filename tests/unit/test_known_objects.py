"""What is known of objects saves reading and changes no answer: plans, scans and certificates, from the first request on."""

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import pytest
from builders import make_record, png
from fake_pipeline import CANARY, FakePipeline
from hypothesis import given, settings
from memory_store import MemoryStore

from flows.audit.notes import STORES
from flows.audit.stores import audited_today
from flows.project import Project
from flows.purge import step as purge
from flows.purge.known import Known
from flows.purge.report import WHICH
from flows.service import maintenance
from lmeraser.core.errors import ProjectError, StepFailedError
from lmeraser.erase.erased import SubjectKey
from lmeraser.prove.object_index import ObjectIndex
from lmeraser.prove.reading import Reading
from lmeraser.prove.scan import scan
from lmeraser.prove.search_terms import SearchTerms
from lmeraser.prove.turns import Turns, load_or_create_audit_key
from lmeraser.stores import folder as folders
from lmeraser.stores.folder import FolderStore
from unit.test_purge_crash import HER, History, histories, is_her, of_history
from unit.tiny_projects import Tiny, object_key, only_these_stores
from unit.yard import BOBS, HERS, Yard, two_states

KEY = SubjectKey(bytes(32))


@pytest.fixture(autouse=True)
def files_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nothing that a test wrote just now would be remembered."""
    monkeypatch.setattr(folders, "YOUNG", -1.0)


def look_at_all(stores: list[MemoryStore], path: Path) -> None:
    scan(stores, SearchTerms(objects=frozenset({"0" * 32})), lambda _: False, Reading(ObjectIndex(path, KEY)))


def knowing(project: Tiny, path: Path) -> Known:
    assert isinstance(project.cache, MemoryStore)
    look_at_all([project.cache, project.remote], path)
    return Known(ObjectIndex(path, KEY), frozenset({KEY.pseudonym(HER)}))


@pytest.mark.slow
@settings(max_examples=60)
@given(histories())
def test_a_plan_by_what_is_known_is_the_plan_by_what_is_read(history: History) -> None:
    with TemporaryDirectory() as folder:
        project = of_history(history, folder)
        with only_these_stores(project, Path(folder)):
            known = knowing(project, Path(folder) / "objects.index")
            read, told = purge.plan(project.layout, is_her), purge.plan(project.layout, is_her, known)
            assert told.search_terms == read.search_terms
            assert {**told.journal.to_json(), "made_at": ""} == {**read.journal.to_json(), "made_at": ""}


def opened_by_plan(yard: Yard, known: Known, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    opened: Counter[str] = Counter()
    real = FolderStore.open

    def counting(store: FolderStore, key: str) -> BinaryIO:
        opened[key.removeprefix("files/md5/").replace("/", "")] += 1
        return real(store, key)

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "open", counting)
        planned = purge.plan(yard.layout, lambda subject: subject == HER, known)
    assert planned.search_terms.ids == {HERS[0].id}
    assert planned.search_terms.images == {png(1)}
    return opened


def test_a_plan_reads_the_objects_that_hold_her_and_no_other(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    cem = yard.store(yard.part(BOBS, (make_record("cem", image=png(3)), png(3))))
    loose = yard.store(b"of nobody knows what", yard.remote)
    old, _ = two_states(yard)
    yard.lock("before/dvc.lock", split=({}, {"artifacts/split/private/p00.parquet": cem}))
    known = look_at_yard(yard)
    opened = opened_by_plan(yard, known, monkeypatch)
    assert (opened[cem], opened[loose]) == (0, 0)
    assert opened[old["part"]] == 2 + 1, "its images too"
    # Changed by hand: what was known of it is not true of this file.
    for place in (yard.cache, yard.remote):
        (place / object_key(cem)).write_bytes(yard.part(HERS))
    again = purge.plan(yard.layout, lambda subject: subject == HER, known)
    assert cem in again.journal.objects


def look_at_yard(yard: Yard) -> Known:
    stores = [FolderStore("cache", yard.cache), FolderStore("remote disk", yard.remote, must_exist=True)]
    path = yard.layout.object_index
    path.parent.mkdir(exist_ok=True)
    look_at_all(stores, path)  # type: ignore[arg-type]
    return Known(ObjectIndex(path, KEY), frozenset({KEY.pseudonym(HER)}))


def test_earlier_names_are_followed_through_objects_that_are_known(yard: Yard) -> None:
    """One part shows her image under an earlier name, another an image of that name alone."""
    two_states(yard)
    again, more = make_record("anna-before", image=png(1)), make_record("anna-before", image=png(4))
    renamed, alone = yard.store(yard.part((again, png(1)))), yard.store(yard.part((more, png(4)), BOBS))
    for number, md5 in enumerate((renamed, alone)):
        yard.lock(f"{number}/dvc.lock", split=({}, {"artifacts/split/private/p00.parquet": md5}))
    known = look_at_yard(yard)
    read, told = (purge.plan(yard.layout, lambda subject: subject == HER, *more) for more in ((), (known,)))
    assert {renamed, alone} <= set(read.journal.objects)
    assert told.journal.objects == read.journal.objects
    assert told.search_terms == read.search_terms


def test_what_retained_records_hold_too_is_found_in_known_parts(yard: Yard) -> None:
    """Else a scan would look for it, find it with them, and never be clean."""
    bobs = (make_record("bobby-tables", image=png(1)), png(1))
    yard.build(HERS, bobs, model=b"old")
    yard.commit()
    yard.build(bobs, model=b"new")
    known = look_at_yard(yard)
    read, told = (purge.plan(yard.layout, lambda subject: subject == HER, *more) for more in ((), (known,)))
    assert read.search_terms.images == set()
    assert read.search_terms.shared
    assert told.search_terms == read.search_terms


def test_entries_of_condemned_objects_go_with_the_objects(yard: Yard) -> None:
    old, new = two_states(yard)
    known = look_at_yard(yard)
    path = yard.layout.object_index
    assert old["part"].encode() in path.read_bytes()
    planned = purge.plan(yard.layout, lambda subject: subject == HER, known)
    purge.carry_out(yard.layout, planned.journal)
    raw = path.read_bytes()
    assert [md5 for md5 in planned.journal.objects if md5.encode() in raw] == []
    assert new["part"].encode() in raw


def scan_told(pipeline: FakePipeline, request_id: str) -> str:
    with pipeline.process() as project:
        request = project.ledger.get(request_id)
        assert request.batch_id
        return dict(project.ledger.get_batch(request.batch_id).scan)[WHICH]


def index_of(pipeline: FakePipeline) -> ObjectIndex:
    with pipeline.process() as project:
        return ObjectIndex(project.layout.object_index, project.subject_key())


def test_a_certificate_says_what_was_read_and_what_was_known(pipeline: FakePipeline) -> None:
    first = pipeline.forget(f"{CANARY}-2")
    told = scan_told(pipeline, first.request_id)
    copies = int(told.partition(" known since")[0].rpartition(" ")[2])
    assert 0 < copies < 10, "artifacts of which the cache has a copy that this scan searched"
    second = pipeline.forget(f"{CANARY}-3")
    read, _, rest = scan_told(pipeline, second.request_id).partition(" files searched now, ")
    known = int(rest.partition(" ")[0])
    assert known > 10
    assert rest == f"{known} known since the same bytes were searched, of {int(read) + known}"


def test_who_was_erased_is_in_no_entry_of_the_index_after_a_request(pipeline: FakePipeline) -> None:
    pipeline.forget(f"{CANARY}-2")
    before = index_of(pipeline)
    with pipeline.process() as project:
        pseudonym = project.subject_key().pseudonym(f"{CANARY}-3")
    written = int(before.key.digests(before.key.people([pseudonym]))[0]).to_bytes(8, "little")
    path = pipeline.layout.object_index
    assert written in path.read_bytes()
    pipeline.forget(f"{CANARY}-3")
    assert written not in path.read_bytes()
    assert [name for name in (f"{CANARY}-3", CANARY) if name.encode() in path.read_bytes()] == []
    for row in purge.remembered(pipeline.layout).objects:
        assert row.encode() not in path.read_bytes()


def test_the_index_is_private_and_an_audit_reads_everything_and_refreshes_it(pipeline: FakePipeline) -> None:
    pipeline.forget(f"{CANARY}-2")
    path = pipeline.layout.object_index
    assert path.stat().st_mode & 0o777 == 0o600
    known = index_of(pipeline).size
    path.write_bytes(b"no index at all")
    status, _, complaint = pipeline.command("audit", "--stores", "--json")
    assert status == 0
    assert complaint.count("the index of the stores is damaged") == 1
    report = pipeline.json("audit", "--stores")
    assert not any("known" in row for row in report["stores"])
    assert index_of(pipeline).size >= known


def test_a_part_of_the_audit_is_drawn_by_the_day_and_noted_in_the_ledger(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nothing to look for" in pipeline.refused(1, "audit", "--stores", "--subset", "1/2")
    pipeline.forget(f"{CANARY}-2")
    known = index_of(pipeline).size
    report = pipeline.json("audit", "--stores", "--subset", "1/2")
    assert index_of(pipeline).size == known > 10, "whose turn it was not stays known"
    counts = {name: sum(row.get(name, 0) for row in report["stores"]) for name in ("objects", "waiting", "bytes")}
    assert counts["objects"] > 5
    assert counts["waiting"] > 5
    with pipeline.process() as project:
        event = project.ledger.last_event(STORES)
        assert audited_today(project)
        project.ledger.verify_chain()
    assert event is not None
    assert {**event.data, "day": ""} == {"clean": True, "day": "", "share": "1/2", **counts}
    assert pipeline.layout.audit_key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("share", ["30", "1/0", "2/3", "1/x", "1/99999", "1/-1"])
def test_a_share_that_is_none_is_refused_before_anything_is_done(pipeline: FakePipeline, share: str) -> None:
    assert "--subset" in pipeline.refused(2, "audit", "--stores", "--subset", share)


def test_the_nightly_part_runs_once_a_day_and_is_switched_off_by_zero(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMERASER_PROJECT", str(pipeline.root))
    run = maintenance.audit_part.fn
    assert "nobody was erased" in run()
    pipeline.forget(f"{CANARY}-2")
    assert "had their turn" in run()
    assert "audited today" in run()
    monkeypatch.setattr("flows.audit.stores.today", lambda: "2100-01-01")
    params = Project.find().params
    service = params.service.model_copy(update={"audit_share": 0})
    monkeypatch.setattr(Project, "params", params.model_copy(update={"service": service}))
    assert "audit_share is 0" in run()


def test_what_is_found_at_night_is_an_error_and_an_event(pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMERASER_PROJECT", str(pipeline.root))
    monkeypatch.setattr(Turns, "has_turn", lambda *_: True)
    parts = [path.read_bytes() for path in pipeline.layout.private.glob("*.parquet")]
    pipeline.forget(f"{CANARY}-2")
    for number, part in enumerate(parts):
        (pipeline.root / f"copy-{number}").write_bytes(part)
    with pytest.raises(StepFailedError, match="residue"):  # as Prefect stores it
        maintenance.audit_part.fn()
    with pipeline.process() as project:
        event = project.ledger.last_event(STORES)
    assert event is not None
    assert event.data["clean"] is False
    assert CANARY not in json.dumps(event.data)


def test_each_file_has_its_turn_about_once_in_as_many_days_as_the_share_says() -> None:
    names = [f"{number:032x}" for number in range(600)]
    turns = Counter(name for day in range(60) for name in names if Turns(b"k" * 32, f"day {day}", 30).has_turn(name))
    assert 0.85 < sum(turns.values()) / (2 * len(names)) < 1.15
    assert len(turns) > 0.8 * len(names)
    other = [name for name in names if Turns(b"o" * 32, "day 1", 30).has_turn(name)]
    assert other != [name for name in names if Turns(b"k" * 32, "day 1", 30).has_turn(name)], "the key decides"


def test_an_audit_key_is_made_once_and_refused_where_others_read_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "audit.key"
    assert load_or_create_audit_key(path) == load_or_create_audit_key(path)
    path.chmod(0o644)
    with pytest.raises(ProjectError, match="mode 0644"):
        load_or_create_audit_key(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(ProjectError, match="has 5 bytes"):
        load_or_create_audit_key(path)
