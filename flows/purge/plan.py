"""Purge: after an erasure no copy of the subjects' records, and nothing derived from them, stays in any store of the project.

    facts (lineage.py) -> what goes (lmeraser/erase/taint.py) -> journal -> deletes -> scan in a new process (scan.py)

The journal is written before the first delete: once some of it is gone, what depended on what can no longer be computed. It
holds digests alone. Carrying it out again after a crash does what is left. Whoever calls holds the workspace's lock.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.dvc import config as remotes
from flows.purge import leftovers, lineage
from flows.purge.lineage import IsErased, Lineage
from flows.purge.raw_objects import raw_objects
from lmeraser.core.digest import readable_json
from lmeraser.core.errors import BlockedError, LmeraserError, ProjectError, StepFailedError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.progress import say
from lmeraser.erase.taint import Condemned, condemn
from lmeraser.stores.base import Store
from lmeraser.stores.dvc_objects import Contents, contents, read_manifests, read_runs

VERSION = 1
DRAFT = ".tmp"  # how DVC names what it has not written whole yet
Journal = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """Attributes: journal: what goes, as digests; raw: the objects that hold records (read them before they go); unknown: how
    many objects of each store stay though nobody can tell what they were made of."""

    journal: Journal
    raw: frozenset[str]
    known: Lineage
    unknown: dict[str, int]


def _folder(layout: Layout) -> Path:
    return layout.private_state / "purge"


def remembered(layout: Layout) -> Condemned:
    """All that was ever condemned here: a stale clone's push brings it back."""
    journals = [_load(path) for path in sorted(_folder(layout).glob("*.json"))]
    objects = frozenset(str(md5) for one in journals for md5 in one["objects"])
    return Condemned(objects, frozenset(str(entry) for one in journals for entry in one["run_entries"]))


def plan(layout: Layout, is_erased: IsErased) -> Planned:
    """Decide what goes; deletes nothing. Raises: ProjectError, StepFailedError; a store that cannot be reached is one."""
    known = lineage.gather(layout)
    raw = raw_objects(known, is_erased)
    earlier = remembered(layout)
    # A folder that nothing names tells of no lineage: what else lies in it is unknown, not condemned.
    named = {md5: members for md5, members in known.manifests.items() if md5 not in known.orphans}
    certain, found = (
        condemn(known.stage_runs, named, raw, known.live, earlier.objects, trusted=trusted) for trusted in (True, False)
    )
    holders = {md5 for md5 in known.orphans & known.manifests.keys() if not raw.isdisjoint(known.manifests[md5].values())}
    objects = certain.objects | holders
    unknown = known.unknown(objects, found.objects)
    journal = {
        "version": VERSION,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "stores": [store.name for store, _ in known.held],
        "objects": sorted(objects),
        # Nothing shows that these are clean, and nothing that they are not: they go where nobody else can miss them.
        "own_cache": sorted(_unknown_in_cache(layout, known) | (found.objects - objects)),
        "run_entries": sorted(certain.run_entries | set(known.broken) | (earlier.run_entries - _clean_runs(known, found))),
        "unknown": unknown,
        "raw": len(raw),
    }
    return Planned(journal, raw, known, unknown)


def _unknown_in_cache(layout: Layout, known: Lineage) -> set[str]:
    """Objects of a cache within the project that nothing names: neither people nor DVC can miss them."""
    return {md5 for store, held in known.held if remotes.is_own(layout, store) for md5 in held.objects.keys() & known.orphans}


def unknown_in_remotes(layout: Layout) -> dict[str, int]:
    """How many objects each remote (and a cache outside the project) holds that no known version of the pipeline names, by store.

    They may be models of anybody, pushed from a clone. Reads listings, manifests and run entries; no content. To be asked before
    anything is destroyed. Raises: ProjectError if git's history is not whole, StepFailedError if a store cannot be reached.
    """
    return lineage.gather(layout).unknown(remembered(layout).objects)


def told_unknown(layout: Layout) -> tuple[dict[str, int], str]:
    """`unknown_in_remotes` for who only tells of it; and why it is not known, "" if it is."""
    try:
        return unknown_in_remotes(layout), ""
    except LmeraserError as error:
        return {}, str(error)


def by_store(counts: Mapping[str, int]) -> str:
    """`cache: 2, remote backup: 1`: counts by store, for people."""
    return ", ".join(f"{name}: {count}" for name, count in sorted(counts.items()))


def refuse_unknown(unknown: dict[str, int], accepted: bool) -> None:
    """Raise BlockedError unless it was accepted that objects stay of which nobody can tell what they were made of."""
    if unknown and not accepted:
        raise BlockedError(
            "stores hold objects that no dvc.lock known to git names, perhaps models of the people to be erased "
            f"({by_store(unknown)}): "
            "fetch the branches of whoever pushed them (`git fetch --all`), or delete them, or accept that they stay "
            "(`--accept-unknown`, or service.accept_unknown: true)"
        )


def _clean_runs(known: Lineage, found: Condemned) -> set[str]:
    """Run entries that were looked at now and are clean."""
    return {one.run_entry for one in known.stage_runs if one.run_entry} - found.run_entries


def plan_purge(layout: Layout, is_erased: IsErased) -> Journal:
    """The journal of `plan`, for callers that need no more."""
    return plan(layout, is_erased).journal


def journal_path(layout: Layout, batch_id: str) -> Path:
    return _folder(layout) / f"{batch_id}.json"


def write_journal(layout: Layout, batch_id: str, journal: Journal) -> None:
    """Store what goes before anything does."""
    path = journal_path(layout, batch_id)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, readable_json(journal), mode=0o600)


def _load(path: Path) -> Journal:
    damaged = ProjectError(f"the purge's journal {path.name} is damaged; restore .lmeraser/purge from your backup")
    try:
        raw = json.loads(path.read_bytes())
    except ValueError as error:
        raise damaged from error
    lists = ("stores", "objects", "run_entries")
    if not isinstance(raw, dict) or raw.get("version") != VERSION or not all(isinstance(raw.get(name), list) for name in lists):
        raise damaged
    return raw


def read_journal(layout: Layout, batch_id: str) -> Journal | None:
    """None if this batch's purge was not planned yet."""
    path = journal_path(layout, batch_id)
    return _load(path) if path.exists() else None


def retire_journal(layout: Layout, batch_id: str) -> None:
    """Let the next try plan anew, and remember what this one condemned."""
    path = journal_path(layout, batch_id)
    if path.exists():
        path.rename(path.with_name(f"{batch_id}.{time.time_ns()}.json"))


def _survivors(store: Store, held: Contents, gone: Condemned, live: frozenset[str]) -> Condemned:
    """What names condemned content now, though it was not there when the purge was planned (a clone pushed in between)."""
    manifests = read_manifests(store, held)
    runs, damaged = read_runs(store, held, gone.run_entries)
    folders = {md5 for md5, members in manifests.items() if md5 not in live and not gone.objects.isdisjoint(members.values())}
    objects = gone.objects | folders
    entries = {identity for identity, (deps, outs) in runs.items() if not objects.isdisjoint(md5 for _, md5 in (*deps, *outs))}
    return Condemned(objects, gone.run_entries | entries | set(damaged))


def _clear_store(store: Store, gone: Condemned, live: frozenset[str], own: bool) -> int:
    """Delete from one store. Run entries first: what is left of a killed purge can then bring nothing back."""
    held = contents(store)
    gone = _survivors(store, held, gone, live)
    entries = [held.runs[identity] for identity in sorted(gone.run_entries & held.runs.keys())]
    objects = [key for md5 in sorted((gone.objects - live) & held.objects.keys()) for key in held.objects[md5]]
    # In a folder that others use too, only what DVC calls its drafts is surely nobody's.
    leftovers = [key for key in held.leftovers if own or key.endswith(DRAFT)]
    return store.delete([*entries, *leftovers, *objects])


def live(layout: Layout) -> tuple[frozenset[str], dict[str, dict[str, str]]]:
    """What the current dvc.lock names, and the manifests that tell; looked up in the cache, in remotes only if it must be."""
    manifests: dict[str, dict[str, str]] = {}
    missing: LmeraserError | None = None
    for store in remotes.stores(layout):
        try:
            manifests |= read_manifests(store, contents(store), manifests)
            return lineage.live_names(layout, manifests), manifests
        except StepFailedError as error:
            missing = missing or error
    raise missing or StepFailedError("cache: nothing tells what the current dvc.lock holds; run `dvc commit --force` and retry")


def carry_out(layout: Layout, journal: Journal) -> list[dict[str, Any]]:
    """Delete what the journal names, and leftovers, everywhere. Safe to repeat; never deletes what dvc.lock names now.

    Returns: {store, deleted} of each store.
    Raises: StepFailedError of the first store that could not be cleared, after all others were.
    """
    current, manifests = live(layout)
    gone = Condemned(frozenset(journal["objects"]) - current, frozenset(journal["run_entries"]))
    more = Condemned(gone.objects | (frozenset(journal.get("own_cache", ())) - current), gone.run_entries)
    done: list[dict[str, Any]] = []
    failures: list[LmeraserError] = []
    for store in remotes.stores(layout):
        try:
            own = remotes.is_own(layout, store)
            done.append({"store": store.name, "deleted": _clear_store(store, more if own else gone, current, own)})
        except LmeraserError as error:
            failures.append(error)
    counts, problems = leftovers.clear(layout, manifests)
    done += [{"store": name, "deleted": count} for name, count in counts.items()]
    failures += problems
    for other in failures[1:]:
        say(f"purge: {other}")
    if failures:
        raise failures[0]
    return done
