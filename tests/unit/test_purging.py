"""Purge of a fake project and its remote: nothing of the person is left, nobody else lost anything, and it can be repeated."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from builders import contents
from fake_pipeline import CANARY, FakePipeline, dvc_of
from kills import killing
from mishaps import copies_outside, unwritable

from flows.dvc import lock_backups
from flows.purge import step as purge
from lmeraser.core.errors import ProjectError, StepFailedError
from lmeraser.erase.erased import ErasedList, SuppressionList, load_key
from lmeraser.serve.quarantine import read_quarantine

PERSON = f"{CANARY}-2"
BATCH = "00000000-0000-4000-8000-000000000001"


class Scene:
    """A project that was built again without a person, and nothing is purged yet."""

    def __init__(self, pipeline: FakePipeline) -> None:
        self.pipeline, self.layout = pipeline, pipeline.layout
        self.cache, self.disk = pipeline.root / ".dvc" / "cache", pipeline.remote
        key = load_key(self.layout.private_state / "subject.key")
        ErasedList(None, frozenset()).add([key.pseudonym(PERSON)], key).keep(self.layout)
        lock_backups.keep(self.layout, BATCH)  # as a retraining does: what the earlier state named stays known
        pipeline.repro()
        self.planned = purge.plan(self.layout, self.is_erased)
        self.search_terms = self.planned.search_terms

    def is_erased(self, subject: str) -> bool:
        return SuppressionList.of(self.layout).is_erased(subject)

    def purge(self) -> None:
        purge.carry_out(self.layout, self.planned.journal)

    @property
    def residue(self) -> set[str]:
        """Stores in which a scan finds something."""
        report = purge.scan_stores(self.layout, self.search_terms)
        stores = {row.store for row in report.stores if row.residue}
        assert report.clean == (not stores)
        assert CANARY not in json.dumps(report.to_json())
        return stores


@pytest.fixture
def scene(pipeline: FakePipeline) -> Scene:
    return Scene(pipeline)


def test_nothing_of_the_person_is_left_and_the_current_state_is_whole(scene: Scene) -> None:
    assert scene.search_terms.ids
    assert scene.search_terms.images
    assert scene.residue == {"cache", "remote disk"}
    artifacts = contents(scene.layout.artifacts)
    scene.purge()
    assert scene.residue == set()
    for path in sorted(scene.layout.artifacts.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    dvc_of(scene.layout).checkout()
    assert contents(scene.layout.artifacts) == artifacts, "from the cache alone"
    assert scene.pipeline.status() == {}
    scene.pipeline.push()
    assert scene.residue == set(), "a push brings nothing back"


def test_planning_again_after_a_purge_finds_nothing_to_do(scene: Scene) -> None:
    scene.purge()
    before = contents(scene.cache), contents(scene.disk)
    assert purge.plan(scene.layout, scene.is_erased).journal.objects == ()
    scene.purge()
    assert (contents(scene.cache), contents(scene.disk)) == before


def test_nobody_erased_condemns_nothing(scene: Scene) -> None:
    assert purge.plan(scene.layout, lambda _: False).journal.objects == ()


def test_purge_that_was_killed_before_any_delete_is_finished_from_its_journal(scene: Scene, tmp_path: Path) -> None:
    purge.write_journal(scene.layout, BATCH, scene.planned.journal)
    deletes = 0
    while True:
        with killing(tmp_path, deletes + 1) as kill:
            journal = purge.read_journal(scene.layout, BATCH)
            assert journal == scene.planned.journal
            assert journal is not None
            purge.carry_out(scene.layout, journal)
        if not kill.dead:
            break
        deletes = (deletes + 1) % 5  # what is left shrinks with each try
    assert scene.residue == set()
    assert scene.pipeline.status() == {}


def test_what_is_live_now_is_never_deleted(scene: Scene) -> None:
    current = purge.live(scene.layout)[0]
    journal = scene.planned.journal
    purge.carry_out(scene.layout, replace(journal, objects=tuple(sorted({*journal.objects, *current}))))
    objects = {name.replace("/", "") for name in contents(scene.cache / "files" / "md5")}
    cached = {
        out["md5"]
        for name, entry in dvc_of(scene.layout).recorded().items()
        for out in entry["outs"]
        if out["path"] not in dvc_of(scene.layout).stages[name].uncached
    }
    assert cached <= objects


def test_objects_that_nothing_names_go_from_the_own_cache_and_stay_in_a_remote(scene: Scene) -> None:
    planted = [store / "files" / "md5" / "ab" / ("0" * 30) for store in (scene.cache, scene.disk)]
    for path in planted:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"a prompt of before")
    planned = purge.plan(scene.layout, scene.is_erased)
    assert planned.unknown == {"remote disk": 1}
    purge.carry_out(scene.layout, planned.journal)
    assert [path.exists() for path in planted] == [False, True]


def test_copies_outside_of_the_stores_go(scene: Scene) -> None:
    with copies_outside(scene.layout, scene.cache, scene.disk) as (leaving, staying):
        scene.purge()
        assert [path for path in leaving if path.exists()] == []
        assert [path for path in staying if not path.exists()] == []


def test_cache_that_cannot_be_written_is_told_after_the_remote_was_cleared(scene: Scene) -> None:
    refusal = r"^cache: \d+ files cannot be deleted \(Read-only file system\)"
    with unwritable(scene.cache), pytest.raises(StepFailedError, match=refusal):
        scene.purge()
    assert scene.residue == {"cache"}
    scene.purge()
    assert scene.residue == set()


def test_remote_that_is_away_stops_planning_and_does_not_stop_the_others(scene: Scene) -> None:
    away = scene.disk.rename(scene.disk.with_name("unmounted"))
    for act in (lambda: purge.plan(scene.layout, scene.is_erased), scene.purge, lambda: scene.residue):
        with pytest.raises(StepFailedError, match="remote disk cannot be reached"):
            act()
    away.rename(scene.disk)
    assert scene.residue == {"remote disk"}
    scene.purge()
    assert scene.residue == set()


@pytest.mark.parametrize("url", ["gs://bucket/x", "ssh://host/x", "https://host/x"])
def test_remote_of_another_kind_is_refused_before_anything_goes(scene: Scene, url: str) -> None:
    with (scene.pipeline.root / ".dvc" / "config").open("a") as config:
        config.write(f"['remote \"far\"']\n    url = {url}\n")
    before = contents(scene.cache)
    with pytest.raises(ProjectError, match=r"^remote far is of type \w+://, but purge supports only folders and S3"):
        purge.plan(scene.layout, scene.is_erased)
    assert contents(scene.cache) == before


def test_stale_clone_s_push_is_found_and_purged_again(scene: Scene) -> None:
    stale = contents(scene.disk)
    purge.write_journal(scene.layout, BATCH, scene.planned.journal)
    scene.purge()
    for name, content in stale.items():
        (scene.disk / name).parent.mkdir(parents=True, exist_ok=True)
        (scene.disk / name).write_bytes(content)
    report = purge.audit_stores(scene.layout)
    assert {row.store for row in report.stores if row.residue} == {"remote disk"}
    purge.carry_out(scene.layout, purge.plan(scene.layout, scene.is_erased).journal)
    assert purge.audit_stores(scene.layout).clean


def test_request_s_own_quarantine_holds_no_copy_once_it_is_purged(pipeline: FakePipeline) -> None:
    pipeline.forget(PERSON)
    assert read_quarantine(pipeline.layout) is None
    assert [name for name, content in contents(pipeline.layout.private_state).items() if PERSON.encode() in content] == []
