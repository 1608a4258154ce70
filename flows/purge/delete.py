"""The deletes: what a journal names, in every store, then what lies outside of stores (`leftovers`).

Safe to repeat after a crash or a failure: run-cache entries go first, so what a killed purge leaves can bring nothing back; and
what alone tells that something else must go, goes last.
"""

from collections.abc import Mapping

from flows.dvc import config as remotes
from flows.purge import leftovers
from flows.purge.journal import PurgeJournal
from flows.purge.lineage import live_names
from lmeraser.core.errors import LmeraserError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.core.progress import say
from lmeraser.erase.taint import Condemned
from lmeraser.prove.object_index import forget_contents
from lmeraser.stores.base import Store
from lmeraser.stores.dvc_objects import Contents, contents, inner_folders, read_manifests, read_runs

DRAFT = ".tmp"  # how DVC names what it has not written whole yet


def live(layout: Layout) -> tuple[frozenset[str], dict[str, dict[str, str]]]:
    """What the current dvc.lock names, and the manifests that tell; looked up in the cache, in remotes only if it must be.

    Raises: ProjectError if a lock is missing or damaged, StepFailedError if no store tells what a folder holds.
    """
    manifests: dict[str, dict[str, str]] = {}
    missing: LmeraserError | None = None
    for store in remotes.stores(layout):
        try:
            manifests |= read_manifests(store, contents(store), manifests)
            return live_names(layout, manifests), manifests
        except StepFailedError as error:
            missing = missing or error
    raise missing or StepFailedError("cache: nothing tells what the current dvc.lock holds; run `dvc commit --force` and retry")


def _with_namers(store: Store, stored: Contents, condemned: Condemned, current: frozenset[str]) -> Condemned:
    """Also what names condemned content now, though it was not there when the purge was planned (a clone pushed in between)."""
    manifests = read_manifests(store, stored)
    manifests |= inner_folders(manifests)
    runs, damaged = read_runs(store, stored, condemned.run_entries)
    folders = {
        md5 for md5, members in manifests.items() if md5 not in current and not condemned.objects.isdisjoint(members.values())
    }
    objects = condemned.objects | folders
    entries = {identity for identity, (deps, outs) in runs.items() if not objects.isdisjoint(md5 for _, md5 in (*deps, *outs))}
    return Condemned(objects, condemned.run_entries | entries | set(damaged))


def _clear_store(store: Store, planned: Condemned, current: frozenset[str], own: bool) -> int:
    """Delete from one store; returns how many keys were there. Raises: StepFailedError after all others were tried."""
    stored = contents(store)
    condemned = _with_namers(store, stored, planned, current)
    entries = [stored.runs[identity] for identity in sorted(condemned.run_entries & stored.runs.keys())]
    objects, folders = (
        [key for md5 in sorted((md5s - current) & stored.objects.keys()) for key in stored.objects[md5]]
        for md5s in (planned.objects, condemned.objects - planned.objects)
    )
    # In a folder that others use too, only what DVC calls its drafts is surely nobody's.
    drafts = [key for key in stored.leftovers if own or key.endswith(DRAFT)]
    deleted = store.delete([*entries, *drafts, *objects])
    # No journal names these folders. While one is there, the next try finds by it the run entries that could not be deleted.
    return deleted + store.delete(folders)


def _without(condemned: Condemned, current: frozenset[str]) -> Condemned:
    return Condemned(condemned.objects - current, condemned.run_entries)


def carry_out(layout: Layout, journal: PurgeJournal) -> Mapping[str, int]:
    """Delete what the journal names, and leftovers, everywhere. Safe to repeat; never deletes what dvc.lock names now.

    Returns: how much was deleted from each store and kind of leftover, by name.
    Raises: StepFailedError of the first store that could not be cleared, after all others were.
    """
    current, manifests = live(layout)
    everywhere, in_own_cache = _without(journal.condemned, current), _without(journal.condemned_in_own_cache, current)
    forget_contents(layout.object_index, everywhere.objects | in_own_cache.objects)
    deleted: dict[str, int] = {}
    failures: list[LmeraserError] = []
    for store in remotes.stores(layout):
        try:
            own = remotes.is_own(layout, store)
            deleted[store.name] = _clear_store(store, in_own_cache if own else everywhere, current, own)
        except LmeraserError as error:
            failures.append(error)
    counts, problems = leftovers.clear(layout, manifests)
    failures += problems
    for other in failures[1:]:
        say(f"purge: {other}")
    if failures:
        raise failures[0]
    return deleted | counts
