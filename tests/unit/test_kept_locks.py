"""Locks are kept from before a batch: what a kill or a failure damaged comes back, and an older copy is never replaced."""

from pathlib import Path

import pytest

from flows.dvc import lock_backups as kept_locks
from lmeraser.core.layout import Layout

NAMES = ("dvc.lock", "tune/00/dvc.lock", "tune/01/dvc.lock")


def text(word: str) -> str:
    return f"stages:\n  {word}:\n    outs:\n    - {{path: a, md5: '1'}}\n"


def write(layout: Layout, word: str, *names: str) -> None:
    for name in names:
        (layout.root / name).write_text(text(word))


def read(layout: Layout) -> list[str]:
    return [(layout.root / name).read_text() for name in NAMES]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).with_name("dvc.yaml").write_text("stages: {}\n")
    write(made, "before", *NAMES)
    kept_locks.keep(made, "batch")
    return made


def test_second_try_keeps_the_copies_of_the_first(layout: Layout) -> None:
    write(layout, "changed", *NAMES)
    kept_locks.keep(layout, "batch")
    kept_locks.put_back(layout, "batch")
    assert read(layout) == [text("before")] * 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["", "stages:\n  a: [", None])
def test_only_the_lock_that_a_kill_damaged_is_taken_from_the_copy(layout: Layout, name: str, damage: str | None) -> None:
    write(layout, "changed", *NAMES)
    (layout.root / name).unlink() if damage is None else (layout.root / name).write_text(damage)
    kept_locks.mend(layout, "batch")
    assert read(layout) == [text("before") if lock == name else text("changed") for lock in NAMES]


def test_putting_back_that_was_killed_half_way_is_finished(layout: Layout) -> None:
    write(layout, "changed", *NAMES)
    folder = layout.private_state / "batch.locks"
    (folder / NAMES[0]).replace(layout.root / NAMES[0])  # killed here
    kept_locks.keep(layout, "batch")
    write(layout, "again", *NAMES)
    kept_locks.put_back(layout, "batch")
    assert read(layout) == [text("before")] * 3
    assert not folder.exists()
