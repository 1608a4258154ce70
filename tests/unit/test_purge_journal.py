"""A purge's journal: its JSON is what every release wrote, and what it condemned is remembered for good."""

import json
import os
import stat
from pathlib import Path

import pytest
from builders import refused
from hypothesis import given
from hypothesis import strategies as st

from flows.purge.journal import PurgeJournal, journal_path, read_journal, remembered, retire_journal, write_journal
from lmeraser.core.digest import readable_json
from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.erase.taint import Condemned

BATCH = "00000000-0000-4000-8000-000000000001"
FOLDER, PART, MODEL, LOOSE = "3c" * 16 + ".dir", "57" * 16, "c2" * 16, "db" * 16
ENTRY = f"{'4' * 64}/{'5' * 64}"
# As releases wrote it before there was a type for it.
WRITTEN = f"""{{
  "made_at": "2026-11-27T08:47:28+00:00",
  "objects": [
    "{FOLDER}",
    "{PART}",
    "{MODEL}"
  ],
  "own_cache": [
    "{LOOSE}"
  ],
  "raw": 1,
  "run_entries": [
    "{ENTRY}"
  ],
  "stores": [
    "cache",
    "remote disk"
  ],
  "unknown": {{
    "remote disk": 1
  }},
  "version": 1
}}
""".encode()
# The first release looked at no unknown objects.
FIRST = {name: value for name, value in json.loads(WRITTEN).items() if name not in ("own_cache", "unknown")}
MD5S = st.lists(st.text("0123456789abcdef", min_size=32, max_size=32), unique=True).map(sorted).map(tuple)


def put(layout: Layout, content: bytes, batch_id: str = BATCH) -> None:
    path = journal_path(layout, batch_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_json_on_disk_is_what_earlier_releases_wrote_byte_for_byte(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    put(layout, WRITTEN)
    journal = read_journal(layout, BATCH)
    assert journal is not None
    assert journal.condemned == Condemned(frozenset({FOLDER, PART, MODEL}), frozenset({ENTRY}))
    assert journal.condemned_in_own_cache.objects == {FOLDER, PART, MODEL, LOOSE}
    assert (journal.stores, journal.unknown, journal.raw) == (("cache", "remote disk"), {"remote disk": 1}, 1)
    write_journal(layout, BATCH, journal)
    path = journal_path(layout, BATCH)
    assert path.read_bytes() == WRITTEN
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_journal_of_the_first_release_is_readable(tmp_path: Path) -> None:
    put(Layout(tmp_path), readable_json(FIRST))
    journal = read_journal(Layout(tmp_path), BATCH)
    assert journal is not None
    assert journal.condemned.objects == journal.condemned_in_own_cache.objects == {FOLDER, PART, MODEL}
    assert journal.unknown == {}


@given(MD5S, MD5S, MD5S, st.dictionaries(st.text(min_size=1), st.integers(1, 9)), st.integers(0, 99))
def test_any_journal_survives_the_disk(
    objects: tuple[str, ...], own: tuple[str, ...], runs: tuple[str, ...], unknown: dict[str, int], raw: int
) -> None:
    journal = PurgeJournal(objects, runs, ("cache",), own, unknown, raw)
    assert PurgeJournal.from_json(json.loads(readable_json(journal.to_json()))) == journal


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        *(
            readable_json(FIRST | change)
            for change in ({"version": 2}, {"objects": "ab"}, {"run_entries": None}, {"objects": [1]})
        ),
        readable_json(json.loads(WRITTEN) | {"own_cache": {}}),
        readable_json(json.loads(WRITTEN) | {"unknown": []}),
        readable_json({name: value for name, value in FIRST.items() if name != "stores"}),
    ],
)
def test_a_damaged_journal_is_refused_and_never_taken_for_an_empty_one(tmp_path: Path, content: bytes) -> None:
    layout = Layout(tmp_path)
    put(layout, content)
    for act in (lambda: read_journal(layout, BATCH), lambda: remembered(layout)):
        assert "restore .lmeraser/purge from your backup" in refused(ProjectError, act)


def test_a_write_that_is_killed_leaves_the_journal_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, journal = Layout(tmp_path), PurgeJournal((PART,), ())

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, killed)
            with pytest.raises(KeyboardInterrupt):
                write_journal(layout, BATCH, journal)
    assert read_journal(layout, BATCH) is None
    put(layout, WRITTEN)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            write_journal(layout, BATCH, journal)
    assert journal_path(layout, BATCH).read_bytes() == WRITTEN


def test_a_retired_journal_is_planned_anew_and_stays_remembered(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    retire_journal(layout, BATCH)  # there is none: nothing to do
    assert remembered(layout) == Condemned(frozenset(), frozenset())
    for md5 in (PART, MODEL):
        write_journal(layout, BATCH, PurgeJournal((md5,), (ENTRY,), own_cache=(LOOSE,)))
        retire_journal(layout, BATCH)
        assert read_journal(layout, BATCH) is None
    assert remembered(layout) == Condemned(frozenset({PART, MODEL}), frozenset({ENTRY})), "what is only unknown is nobody's"
