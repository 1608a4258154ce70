"""Purge of a real project: after an erasure nothing of the person is in any store, and nobody else lost anything."""

import shutil
import stat
from dataclasses import replace

import pytest
from mishaps import copies_outside
from sandbox import CANARY, files
from scene import BATCH, Scene, pulls, victim

from flows.purge import step as purge

pytestmark = pytest.mark.slow


def test_nothing_of_her_is_left_and_nobody_else_lost_anything(scene: Scene) -> None:
    before = scene.contents()
    _, search_terms = scene.plan()
    assert search_terms.ids, "there was nothing to look for"
    assert search_terms.images
    assert search_terms.names == {victim(scene)}
    dirty = scene.residue(search_terms)
    every = {"condemned object", "condemned run entry", "names a condemned object", "subject", "record", "bytes"}
    assert dirty["cache"] == dirty["remote disk"] == every
    journal, _ = scene.purge()
    assert scene.residue(search_terms) == {}
    assert scene.dvc("status", "--json").strip() == "{}", "the current state is whole"
    ours = (".lmeraser/purge/", ".lmeraser/objects.index")  # what a purge keeps: digests
    after = {name: content for name, content in scene.contents().items() if not name.startswith(ours)}
    assert after == before
    assert pulls(scene, "other").returncode == 0
    assert pulls(scene, "with").returncode != 0
    path = purge.journal_path(scene.layout, BATCH)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not [mark for mark in (CANARY, *search_terms.ids) if mark in path.read_text()]
    assert journal.stores == ("cache", "remote disk")
    scene.git("commit", "--quiet", "--all", "--message", "without her")
    scene.dvc("push", "--quiet", "--run-cache")
    assert pulls(scene, "main").returncode == 0
    assert scene.residue(search_terms) == {}, "a push brings nothing back"


def test_the_branch_without_her_keeps_every_object_and_run(scene: Scene) -> None:
    kept = files(scene.cache)
    journal, _ = scene.purge()
    deleted = {name for name in kept if name not in files(scene.cache)}
    named = {md5[:2] + "/" + md5[2:] for md5 in journal.objects} | {f"runs/{entry[:2]}/{entry}" for entry in journal.run_entries}
    assert deleted
    assert {name.removeprefix("files/md5/") for name in deleted} <= named
    scene.git("stash", "--quiet")
    scene.git("checkout", "--quiet", "other")
    scene.dvc("checkout", "--quiet")  # from the cache alone


def test_planning_again_after_a_purge_finds_nothing_to_do(scene: Scene) -> None:
    scene.purge()
    before = files(scene.cache), files(scene.disk)
    scene.purge()
    assert (files(scene.cache), files(scene.disk)) == before


def test_nobody_erased_condemns_nothing(scene: Scene) -> None:
    assert purge.plan(scene.layout, lambda _: False).journal.objects == ()


KILLED = """
import os, sys
from pathlib import Path
from flows.purge import step as purge
from lmeraser.core.layout import Layout
from lmeraser.stores.folder import FolderStore
left = int(sys.argv[1])
real = FolderStore.delete
def delete(store, keys):
    global left
    for key in list(keys):
        if left == 0:
            os._exit(9)
        left -= 1
        real(store, [key])
    return 0
FolderStore.delete = delete
layout = Layout(Path.cwd())
purge.carry_out(layout, purge.read_journal(layout, sys.argv[2]))
"""


OFTEN = pytest.mark.campaign("in process, before any delete: unit/test_purging.py and unit/test_purge_crash.py")


@pytest.mark.parametrize("deletes", [9, *(pytest.param(count, marks=OFTEN) for count in (0, 1, 40))])
def test_a_purge_that_was_killed_is_finished_from_its_journal(scene: Scene, deletes: int) -> None:
    planned, search_terms = scene.plan()
    purge.write_journal(scene.layout, BATCH, planned.journal)
    assert scene.python("-c", KILLED, str(deletes), BATCH).returncode == 9
    assert scene.residue(search_terms)
    journal = purge.read_journal(scene.layout, BATCH)
    assert journal == planned.journal
    assert journal is not None
    purge.carry_out(scene.layout, journal)
    assert scene.residue(search_terms) == {}
    purge.carry_out(scene.layout, journal)
    assert pulls(scene, "other").returncode == 0


def test_what_is_live_now_is_never_deleted(scene: Scene) -> None:
    journal = purge.plan(scene.layout, scene.is_erased).journal
    live = purge.live(scene.layout)[0]
    purge.carry_out(scene.layout, replace(journal, objects=tuple(sorted({*journal.objects, *live}))))
    shutil.rmtree(scene.layout.artifacts)
    scene.dvc("checkout", "--quiet")
    assert scene.dvc("status", "--json").strip() == "{}"


def test_objects_that_nothing_names_any_more_go_from_the_own_cache(scene: Scene) -> None:
    """The old dvc.lock was never committed and no run was cached: what it named cannot be shown to be clean."""
    orphan = scene.cache / "files" / "md5" / "ab" / ("0" * 30)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"a prompt of before")
    tracked = scene.root / "notes.bin"
    tracked.write_bytes(b"somebody's file")
    scene.dvc("add", "--quiet", "notes.bin")
    objects = {name for name, content in files(scene.cache).items() if content == b"somebody's file"}
    scene.purge()
    assert not orphan.exists()
    assert objects <= files(scene.cache).keys()


def test_copies_outside_of_the_stores_go(scene: Scene) -> None:
    with copies_outside(scene.layout, scene.cache, scene.disk) as (leaving, staying):
        scene.purge()
        assert [path for path in leaving if path.exists()] == []
        assert [path for path in staying if not path.exists()] == []
