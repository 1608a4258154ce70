"""The purge's journal, `.lmeraser/purge/BATCH.json`: what goes, written before the first delete.

Once some of it is gone, what depended on what can no longer be computed: a purge that was killed is carried out again from its
journal and not planned again. A journal holds digests and counts alone. It stays for good: a stale clone's push brings back what
was condemned long ago.
"""

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lmeraser.core.digest import readable_json
from lmeraser.core.errors import ProjectError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.erase.taint import Condemned

VERSION = 1


@dataclass(frozen=True)
class PurgeJournal:
    """Attributes:
    made_at: ISO 8601, UTC. stores: names of those that the plan looked into.
    objects: MD5s that go from every store; own_cache: those that go from a cache within the project alone.
    run_entries: ids of run-cache entries. All sorted, each once.
    unknown: by store, how many objects stay although nobody can tell what they were made of.
    raw: how many of the objects hold records.
    """

    objects: tuple[str, ...]
    run_entries: tuple[str, ...]
    stores: tuple[str, ...] = ()
    own_cache: tuple[str, ...] = ()
    unknown: dict[str, int] = field(default_factory=dict)
    raw: int = 0
    made_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def condemned(self) -> Condemned:
        """What goes from every store."""
        return Condemned(frozenset(self.objects), frozenset(self.run_entries))

    @property
    def condemned_in_own_cache(self) -> Condemned:
        """What goes from a cache that nobody else uses."""
        return Condemned(frozenset((*self.objects, *self.own_cache)), frozenset(self.run_entries))

    def to_json(self) -> dict[str, object]:
        return {
            "version": VERSION,
            "made_at": self.made_at,
            "stores": list(self.stores),
            "objects": list(self.objects),
            "own_cache": list(self.own_cache),
            "run_entries": list(self.run_entries),
            "unknown": self.unknown,
            "raw": self.raw,
        }

    @classmethod
    def from_json(cls, raw: object) -> "PurgeJournal":
        """Of any release: the first ones had neither `own_cache` nor `unknown`. Raises: ValueError if it is no journal."""
        if not isinstance(raw, dict) or raw.get("version") != VERSION:
            raise ValueError("not a purge's journal of a known version")
        unknown = raw.get("unknown", {})
        if not isinstance(unknown, dict):
            raise ValueError("unknown is not an object")
        return cls(
            objects=_texts(raw.get("objects")),
            run_entries=_texts(raw.get("run_entries")),
            stores=_texts(raw.get("stores")),
            own_cache=_texts(raw.get("own_cache", [])),
            unknown={str(store): int(count) for store, count in unknown.items()},
            raw=int(raw.get("raw", 0)),
            made_at=str(raw.get("made_at", "")),
        )


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError("not a list of texts")
    return tuple(value)


def _folder(layout: Layout) -> Path:
    return layout.private_state / "purge"


def journal_path(layout: Layout, batch_id: str) -> Path:
    return _folder(layout) / f"{batch_id}.json"


def write_journal(layout: Layout, batch_id: str, journal: PurgeJournal) -> None:
    """Store what goes before anything does."""
    path = journal_path(layout, batch_id)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, readable_json(journal.to_json()), mode=0o600)


def _load(path: Path) -> PurgeJournal:
    try:
        return PurgeJournal.from_json(json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        raise ProjectError(f"the purge's journal {path.name} is damaged; restore .lmeraser/purge from your backup") from error


def read_journal(layout: Layout, batch_id: str) -> PurgeJournal | None:
    """None if this batch's purge was not planned yet. Raises: ProjectError if the file is damaged."""
    path = journal_path(layout, batch_id)
    return _load(path) if path.exists() else None


def retire_journal(layout: Layout, batch_id: str) -> None:
    """Let the next try plan anew, and remember what this one condemned."""
    path = journal_path(layout, batch_id)
    if path.exists():
        path.rename(path.with_name(f"{batch_id}.{time.time_ns()}.json"))


def remembered(layout: Layout) -> Condemned:
    """All that was ever condemned here: a stale clone's push brings it back. Raises: ProjectError if a journal is damaged."""
    journals = [_load(path) for path in sorted(_folder(layout).glob("*.json"))]
    return Condemned(
        frozenset(md5 for journal in journals for md5 in journal.objects),
        frozenset(entry for journal in journals for entry in journal.run_entries),
    )
