"""What goes wrong around a request or a purge, brought about alike in a fake project (tests/unit) and in a real one."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.purge import leftovers
from lmeraser.core.layout import Layout


def bad_events(canary: str, letters: int, people: int) -> list[bytes]:
    """Events that are refused. Args: letters: of a name that is too long, in canaries; people: of a request that is too large."""
    good = {"request_id": "7f6d3f5e-1111-4222-8333-444455556666", "subjects": [f"{canary}-x"]}
    return [
        b"{",
        json.dumps({"subjects": [f"{canary}-x"]}).encode(),
        json.dumps(good | {"request_id": canary}).encode(),
        json.dumps(good | {"subjects": [canary * letters]}).encode(),
        json.dumps(good | {"subjects": [f"{canary}\x07"]}).encode(),
        json.dumps(good | {"subjects": [f"{canary}-{number}" for number in range(people)]}).encode(),
    ]


def assert_damage_is_refused(state: Path, resume: Callable[[], str]) -> None:
    """A damaged ledger is refused and left as it is, and so are secrets that others may read; both are whole afterwards.

    Args: state: the private state; resume: tries to go on, and returns the line of the refusal.
    """
    ledger = state / "ledger.db"
    whole = ledger.read_bytes()
    for damage in (b"CANARY" * 2000, whole[: len(whole) // 2]):
        ledger.write_bytes(damage)
        assert "damaged" in resume()
        assert ledger.read_bytes() == damage
    ledger.write_bytes(whole)
    for path in (ledger, state / "subject.key"):
        path.chmod(0o644)
        assert "chmod 600" in resume()
        path.chmod(0o600)


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Nothing below a folder can be deleted: modes do not stop root."""
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.is_relative_to(folder):
            raise OSError(30, "Read-only file system")
        unlink(path, missing_ok)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        yield


@contextmanager
def copies_outside(layout: Layout, cache: Path, remote: Path) -> Iterator[tuple[list[Path], list[Path]]]:
    """What killed processes and people left outside of the stores: files that a purge deletes, and files that it must not."""
    folder = Path(tempfile.gettempdir())
    killed, running = folder / "lmeraser-audit-killed", folder / "lmeraser-audit-running"
    leaving = [
        layout.artifacts / "tune" / ".writing-abc",
        layout.artifacts / "tune" / "removed-slot.safetensors",
        layout.artifacts / "old" / "x.parquet",
        layout.root / ".demo" / "artifacts" / "x",
        layout.root / "dvc_plots" / "index.html",
        layout.root / ".dvc" / "tmp" / "exps" / "x",
        layout.root / ".dvc" / "tmp" / "site" / "repo" / "x",
        cache / "files" / "md5" / "aa" / ".Zk3.tmp",
        remote / "files" / "md5" / "aa" / "xyz.Zk3.tmp",
        killed / "part.parquet",
    ]
    staying = [layout.private_state / "workspace.lock", running / "part.parquet"]
    for path in (*leaving, *staying):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    leftovers.mark_audit(killed, layout)
    leftovers.MARKS.pop().close()
    leftovers.mark_audit(running, layout)
    try:
        yield leaving, staying
    finally:
        leftovers.MARKS.pop().close()
