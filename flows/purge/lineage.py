"""What is known about every version of the pipeline: its locks in the working tree, in kept copies and in all of git's history,
run-cache entries and folder manifests in every store. Facts only; `lmeraser/erase/taint.py` decides.
"""

from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import cached_property

from flows.dvc import config as remotes
from flows.purge.lock_history import KEPT, WORKING, all_stages, parse_lock, versions
from lmeraser.core.errors import ProjectError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.erase.taint import FOLDER, Manifests, StageRun, with_members
from lmeraser.pipeline.files import locks
from lmeraser.pipeline.locks import damaged
from lmeraser.stores.base import Entry, Store
from lmeraser.stores.dvc_objects import Contents, contents, read_manifests, read_runs

IsErased = Callable[[str], bool]
StoreContents = list[tuple[Store, Contents]]


def current_stages(layout: Layout) -> list[StageRun]:
    """The stages of the current locks. Raises: ProjectError if one is missing, empty or damaged."""
    stages: list[StageRun] = []
    for path in locks(layout.root):
        name = path.relative_to(layout.root).as_posix()
        if not path.exists():
            raise ProjectError(f"{name} is missing: nothing was built yet; run `dvc repro` and retry")
        recorded = parse_lock(path.read_bytes())
        if not any(stage.outs for stage in recorded):
            raise ProjectError(damaged(name))
        stages += recorded
    return stages


def live_names(layout: Layout, manifests: Manifests) -> frozenset[str]:
    """Everything that the current locks name, with the members of its folders. Raises: ProjectError, StepFailedError."""
    stages = current_stages(layout)
    outs = {md5 for stage in stages for _, md5 in stage.outs}
    # Without its members, what is live in a folder could be taken for what is condemned.
    unknown = [md5 for md5 in outs if md5.endswith(FOLDER) and md5 not in manifests]
    if unknown:
        raise StepFailedError(f"cache: the manifest {unknown[0]} of a current out is missing; run `dvc commit --force` and retry")
    return with_members(outs | {md5 for stage in stages for _, md5 in stage.deps}, manifests)


@dataclass(frozen=True)
class Lineage:
    """Attributes: contents: what each store holds; broken: run entries that cannot be read; live: see `live_names`; problem: why
    git's history is not whole, "" if it is."""

    layout: Layout
    contents: StoreContents
    stage_runs: list[StageRun]
    manifests: dict[str, dict[str, str]]
    broken: list[str]
    live: frozenset[str]
    problem: str = ""

    @cached_property
    def copies(self) -> dict[str, list[tuple[Store, Entry]]]:
        """Where each object lies, by MD5."""
        copies: dict[str, list[tuple[Store, Entry]]] = {}
        for store, stored in self.contents:
            for md5, keys in stored.objects.items():
                copies.setdefault(md5, []).extend((store, stored.entries[key]) for key in keys)
        return copies

    @cached_property
    def named(self) -> frozenset[str]:
        """Everything that a stage of some version names."""
        return with_members({md5 for run in self.stage_runs for _, md5 in (*run.deps, *run.outs)}, self.manifests) | self.live

    @cached_property
    def orphans(self) -> frozenset[str]:
        """Objects that nothing names: nobody can tell what they were made of."""
        return frozenset(self.copies.keys() - self.named)

    @cached_property
    def _origins(self) -> frozenset[str]:
        """Every version that is known."""
        return frozenset().union(*(run.origins for run in self.stage_runs))

    @cached_property
    def in_use(self) -> frozenset[str]:
        """Everything that a lock or `.dvc` file in the working tree names now, also one of another pipeline."""
        working = {origin for origin in self._origins if origin == WORKING or origin.startswith(f"{WORKING}: ")}
        here = [run for run in self.stage_runs if not run.origins.isdisjoint(working)]
        return with_members({md5 for run in here for _, md5 in (*run.deps, *run.outs)}, self.manifests) | self.live

    @cached_property
    def lasting(self) -> list[StageRun]:
        """The stage runs that something tells of when the batches are done for which copies of locks are kept."""
        kept = {origin for origin in self._origins if origin.startswith(KEPT)}
        return [run for run in self.stage_runs if run.run_entry or not run.origins <= kept]

    def outside(self) -> StoreContents:
        """The stores that others may use too: all but a cache within the project."""
        return [(store, stored) for store, stored in self.contents if not remotes.is_own(self.layout, store)]

    def unknown(self, condemned: Set[str], doubtful: Set[str] = frozenset()) -> dict[str, int]:
        """How many objects of each store outside the project stay, though nobody can tell what they were made of.

        Args: condemned: MD5s of what goes; doubtful: of what may have been made of erased records, and goes from the own cache
        only.
        """
        kept = (self.orphans | doubtful) - condemned - self.live
        return {store.name: count for store, stored in self.outside() if (count := len(kept & stored.objects.keys()))}


def gather(layout: Layout) -> Lineage:
    """Raises: ProjectError for a store that purge cannot clear, or a history that is not whole while others may use a store;
    StepFailedError if a store cannot be reached."""
    listed = [(store, contents(store)) for store in remotes.stores(layout)]
    manifests: dict[str, dict[str, str]] = {}
    stage_runs: list[StageRun] = []
    broken: list[str] = []
    runs: set[str] = set()
    for store, stored in listed:
        manifests |= read_manifests(store, stored, manifests)
        fresh, damaged = read_runs(store, stored, runs)
        stage_runs += [StageRun(*sides, run_entry=identity) for identity, sides in fresh.items()]
        runs |= fresh.keys()
        broken += damaged
    history = versions(layout)
    lineage = Lineage(
        layout, listed, stage_runs + all_stages(history.known), manifests, broken, live_names(layout, manifests), history.problem
    )
    if lineage.problem and lineage.outside():
        raise ProjectError(
            f"git's history cannot be read whole, so what {lineage.outside()[0][0].name} holds of earlier models cannot be told: "
            f"{lineage.problem}, and retry"
        )
    return lineage
