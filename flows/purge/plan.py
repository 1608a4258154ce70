"""What purge deletes from the stores, and what stays there although nobody can tell what it was made of.

Objects that hold a record of the erased people (`raw_objects`), what was derived from them (`lmeraser/erase/taint.py`), and
what earlier purges condemned. What the current dvc.lock names never goes. Nothing is deleted here.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace

from flows.dvc import config as remotes
from flows.purge.journal import PurgeJournal, remembered
from flows.purge.known import NOTHING, Known
from flows.purge.lineage import IsErased, Lineage, gather
from flows.purge.marks import NO_IMAGES, NO_OLD_VALUES, OldValues
from flows.purge.raw_objects import raw_objects
from lmeraser.core.errors import BlockedError, LmeraserError
from lmeraser.core.layout import Layout
from lmeraser.erase.erased import ErasedImages
from lmeraser.erase.taint import NOTHING_CONDEMNED, Condemned, condemn, with_members
from lmeraser.prove.search_terms import SearchTerms
from lmeraser.stores.dvc_objects import inner_folders


@dataclass(frozen=True)
class PurgePlan:
    """Attributes: journal: what goes, as digests; lineage: the facts that decided it; search_terms: what a scan must not find
    afterwards, read while the records were still there (personal data).
    """

    journal: PurgeJournal
    lineage: Lineage
    search_terms: SearchTerms = field(repr=False)

    @property
    def unknown(self) -> dict[str, int]:
        """How many objects of each store stay though nobody can tell what they were made of."""
        return self.journal.unknown


def plan(
    layout: Layout,
    is_erased: IsErased,
    known: Known = NOTHING,
    erased_images: ErasedImages = NO_IMAGES,
    seen: Condemned = NOTHING_CONDEMNED,
    old_values: OldValues = NO_OLD_VALUES,
) -> PurgePlan:
    """Decide what goes; deletes nothing.

    Args:
        known: objects that need not be read, by the lists that `is_erased` knows.
        seen: what a scan found to hold the people. It goes, whatever lineage tells, unless the working tree needs it.
    Raises: ProjectError, StepFailedError; a store that cannot be reached is one.
    """
    lineage = gather(layout)
    raw, search_terms = raw_objects(lineage, is_erased, known, erased_images, old_values)
    raw |= seen.objects - lineage.in_use
    earlier = remembered(layout)
    # A folder that nothing names tells of no lineage: what else lies in it is unknown, not condemned.
    manifests = {md5: members for md5, members in lineage.manifests.items() if md5 not in lineage.orphans}
    manifests |= inner_folders(manifests)
    certain, possible = (
        condemn(lineage.stage_runs, manifests, raw, lineage.live, earlier.objects, trusted=trusted) for trusted in (True, False)
    )
    holders = {md5 for md5 in lineage.orphans & lineage.manifests.keys() if not raw.isdisjoint(lineage.manifests[md5].values())}
    objects: Set[str] = certain.objects | holders
    entries: Set[str] = certain.run_entries | seen.run_entries | set(lineage.broken)
    entries |= earlier.run_entries - _clean_runs(lineage, possible)
    if old_values.corrections:
        objects, entries = _with_superseded(lineage, objects, entries)
    journal = PurgeJournal(
        stores=tuple(store.name for store, _ in lineage.contents),
        objects=tuple(sorted(objects)),
        # Nothing shows that these are clean, and nothing that they are not: they go where nobody else can miss them.
        own_cache=tuple(sorted(_unknown_in_cache(layout, lineage) | (possible.objects - objects))),
        run_entries=tuple(sorted(entries)),
        unknown=lineage.unknown(objects, possible.objects),
        raw=len(raw),
    )
    condemned = journal.condemned
    return PurgePlan(journal, lineage, replace(search_terms, objects=condemned.objects, run_entries=condemned.run_entries))


def _with_superseded(lineage: Lineage, objects: Set[str], entries: Set[str]) -> tuple[set[str], set[str]]:
    """Also what loses its last name with them, and the run entries that name any of it.

    A corrected record came into a file: the file as it was, and what was made of it, is of no state that is left. It holds nobody
    who left, but without its folder, its run entry and the locks of the state before nobody could tell that any more.
    """
    inner = {md5: inner_folders({md5: members}) for md5, members in lineage.manifests.items()}
    folders = lineage.manifests | {md5: members for within in inner.values() for md5, members in within.items()}
    going, gone_entries = set(objects), set(entries)
    while True:
        holders = {md5 for md5, members in folders.items() if not going.isdisjoint(members.values())} - lineage.live
        # The deletes take along what names something that goes (`delete`).
        gone_entries |= {
            run.run_entry
            for run in lineage.stage_runs
            if run.run_entry and not (going | holders).isdisjoint(md5 for _, md5 in (*run.deps, *run.outs))
        }
        going |= holders & lineage.manifests.keys()
        kept = {md5: members for md5, members in lineage.manifests.items() if md5 not in going}
        kept |= {md5: members for folder in kept for md5, members in inner[folder].items()}
        lasting = (run for run in lineage.lasting if run.run_entry not in gone_entries)
        named = with_members({md5 for run in lasting for _, md5 in (*run.deps, *run.outs)}, kept)
        superseded = (lineage.named & lineage.copies.keys()) - named - lineage.live - going
        if not superseded:
            return going, gone_entries
        going |= superseded


def _unknown_in_cache(layout: Layout, lineage: Lineage) -> set[str]:
    """Objects of a cache within the project that nothing names: neither people nor DVC can miss them."""
    own = (contents for store, contents in lineage.contents if remotes.is_own(layout, store))
    return {md5 for contents in own for md5 in contents.objects.keys() & lineage.orphans}


def _clean_runs(lineage: Lineage, possible: Condemned) -> set[str]:
    """Run entries that were looked at now and are clean."""
    return {run.run_entry for run in lineage.stage_runs if run.run_entry} - possible.run_entries


def unknown_in_remotes(layout: Layout) -> dict[str, int]:
    """How many objects each remote (and a cache outside the project) holds that no known version of the pipeline names, by store.

    They may be models of anybody, pushed from a clone. Reads listings, manifests and run entries; no content. To be asked before
    anything is destroyed. Raises: ProjectError if git's history is not whole, StepFailedError if a store cannot be reached.
    """
    if all(remotes.is_own(layout, store) for store in remotes.stores(layout)):
        return {}  # nothing that others use: the purge reads the history once
    return gather(layout).unknown(remembered(layout).objects)


def told_unknown(layout: Layout) -> tuple[dict[str, int], str]:
    """`unknown_in_remotes` for who only tells of it; and why it is not known, "" if it is."""
    try:
        return unknown_in_remotes(layout), ""
    except LmeraserError as error:
        return {}, str(error)


def by_store(counts: Mapping[str, int]) -> str:
    """`cache: 2, remote backup: 1`: counts by store, for people."""
    return ", ".join(f"{name}: {count}" for name, count in sorted(counts.items()))


def refuse_unknown(unknown: Mapping[str, int], accepted: bool) -> None:
    """Raise BlockedError unless it was accepted that objects stay of which nobody can tell what they were made of."""
    if unknown and not accepted:
        raise BlockedError(
            "stores hold objects that no dvc.lock known to git names, perhaps models of the people to be erased "
            f"({by_store(unknown)}): "
            "fetch the branches of whoever pushed them (`git fetch --all`; in a clone of one branch first "
            "`git remote set-branches origin '*'`), or delete them, or accept that they stay "
            "(`--accept-unknown`, or service.accept_unknown: true)"
        )
