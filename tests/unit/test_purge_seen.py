"""What a scan saw to hold people goes though no lineage tells of it; what the working tree needs stays."""

import gzip

import pytest
from builders import png

from flows.purge import step as purge
from flows.purge.report import ScanReport, report_of
from lmeraser.erase.taint import NOTHING_CONDEMNED, Condemned
from lmeraser.prove.scan import scan
from lmeraser.prove.search_terms import SearchTerms
from lmeraser.stores.folder import FolderStore
from unit.tiny_projects import entry_of, run_key, run_text
from unit.yard import HER, HERS, Yard, two_states

TERMS = SearchTerms(ids=frozenset({HERS[0].id}), images=frozenset({png(1)}))
MEMBERS = "artifacts/cluster/members/c00.parquet"


def scanned(yard: Yard) -> ScanReport:
    stores = [FolderStore("cache", yard.cache), FolderStore("remote disk", yard.remote)]
    return report_of(yard.layout, stores, scan(stores, TERMS, lambda subject: subject == HER), [])


def purged(yard: Yard, seen: Condemned) -> purge.PurgePlan:
    planned = purge.plan(yard.layout, lambda subject: subject == HER, seen=seen)
    purge.carry_out(yard.layout, planned.journal)
    return planned


def run_entry(yard: Yard, name: str, deps: dict[str, str], outs: dict[str, str]) -> str:
    path = yard.remote / run_key(entry_of(name))
    path.parent.mkdir(parents=True)
    path.write_bytes(run_text((deps, outs)))
    return entry_of(name)


def named_by_a_run_alone(yard: Yard, content: bytes) -> tuple[str, str, str]:
    """An object that is the dep of a cached run, and what the run made of it: no version tells what it was made of."""
    members, model = yard.store(content, yard.remote), yard.store(b"tuned on her cluster", yard.remote)
    return members, model, run_entry(yard, "tune", {MEMBERS: members}, {"artifacts/tune/c00.safetensors": model})


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "compressed"])
def test_what_a_scan_saw_goes_with_all_that_was_made_of_it(packed: bool, yard: Yard) -> None:
    _, new = two_states(yard)
    content = HERS[0].id.encode() + b" of her cluster"
    members, model, entry = named_by_a_run_alone(yard, gzip.compress(content, mtime=0) if packed else content)
    purged(yard, NOTHING_CONDEMNED)
    assert {members, model} <= yard.objects_in(yard.remote), "what lineage tells is clean"
    report = scanned(yard)
    assert report.holding == Condemned(frozenset({members}))
    planned = purged(yard, report.holding)
    assert entry in planned.journal.run_entries
    assert yard.objects_in(yard.remote) == yard.objects_in(yard.cache) == set(new.values())
    assert scanned(yard).clean


def test_a_run_entry_that_holds_people_goes(yard: Yard) -> None:
    two_states(yard)
    entry = run_entry(yard, HER, {}, {f"exports/{HERS[0].id}.csv": "3" * 32})
    report = scanned(yard)
    assert entry in report.holding.run_entries
    purged(yard, report.holding)
    assert not (yard.remote / run_key(entry)).exists()


def test_what_the_working_tree_needs_is_never_deleted_whatever_a_scan_saw(yard: Yard) -> None:
    _, new = two_states(yard)
    ours, theirs = (yard.store(HERS[0].id.encode() + text) for text in (b" added", b" of another pipeline"))
    (yard.root / "notes.txt.dvc").write_text(f"outs:\n- md5: {ours}\n  path: notes.txt\n")
    yard.lock("other/dvc.lock", report=({}, {"report.txt": theirs}))
    gone = yard.store(HERS[0].id.encode() + b" of a branch")
    yard.lock("third/dvc.lock", report=({}, {"report.txt": gone}))
    yard.commit()
    (yard.root / "third" / "dvc.lock").unlink()
    seen = Condemned(frozenset({ours, theirs, gone, *new.values()}))
    purged(yard, seen)
    assert yard.objects_in(yard.remote) == yard.objects_in(yard.cache) == {ours, theirs, *new.values()}


def test_what_cannot_be_read_is_not_seen_to_hold_anybody(yard: Yard) -> None:
    two_states(yard)
    purged(yard, NOTHING_CONDEMNED)
    yard.store(b"PAR1 damaged PAR1", yard.remote)
    report = scanned(yard)
    assert not report.clean
    assert not report.holding


def test_digests_of_what_a_scan_saw_reach_who_deletes_it_and_no_report(yard: Yard) -> None:
    """An object that is one image is known by its digest."""
    yard.build(HERS, model=b"a model")
    report = scanned(yard)
    assert report.holding.objects
    assert ScanReport.from_json(report.to_pipe()) == report
    assert not any(md5 in str(report.to_json()) for md5 in report.holding.objects)
