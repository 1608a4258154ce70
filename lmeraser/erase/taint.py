"""What must go with an erased subject: a pure function of what is known about every version of the pipeline.

Facts are a graph over content (MD5, as DVC names it; a folder's ends in `.dir`). Taint flows from the objects that were seen to
hold a record of the subjects, along

    dep -> stage run -> outs          what a stage made of tainted content is tainted
    folder <-> member                      both ways
    out -> dep that covers its path        `artifacts/embed` is a dep and no out: only a lock version tells what it held

and stops at content that the current dvc.lock names, and at content that a clean stage run (one without a tainted dep) also made:
`passed.json` is the same whoever was there. So branches with other data keep what is theirs. Exempting content can make further
stage runs clean, hence the loop; each turn only shrinks the taint, so it ends. A stage run without any dep (`dvc add`, a stage
that reads nothing) shows that its out is clean only if no stage with deps made the same: a copy that somebody added is a copy.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

Named = tuple[tuple[str, str], ...]  # (path, md5)
Manifests = Mapping[str, Mapping[str, str]]  # md5.dir -> {relative path: md5}
Edges = dict[str, set[str]]
Produced = list[frozenset[str]]  # the outs of each execution, with their members
Origins = frozenset[str]
FOLDER = ".dir"


@dataclass(frozen=True)
class StageRun:
    """One execution of a stage. Attributes: origins: the lock versions that tell of it, none where a run-cache entry does;
    run_entry: its id there."""

    deps: Named
    outs: Named
    origins: Origins = frozenset()
    run_entry: str = ""


@dataclass(frozen=True)
class Condemned:
    """Attributes: objects: MD5s, also of folders that are only deps and no object; run_entries: ids of run-cache entries."""

    objects: frozenset[str] = frozenset()
    run_entries: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.objects or self.run_entries)

    def __or__(self, other: "Condemned") -> "Condemned":
        return Condemned(self.objects | other.objects, self.run_entries | other.run_entries)


NOTHING_CONDEMNED = Condemned()


def covers(parent: str, path: str) -> bool:
    return path == parent or path.startswith(parent + "/")


def _content_edges(manifests: Manifests) -> Edges:
    edges: Edges = defaultdict(set)
    for folder, members in manifests.items():
        for member in members.values():
            edges[folder].add(member)
            edges[member].add(folder)
    return edges


def _pairs(sides: Iterable[tuple[Named, Origins]]) -> dict[tuple[str, str], set[str]]:
    """Each path with what lay there, and in which lock versions."""
    pairs: dict[tuple[str, str], set[str]] = defaultdict(set)
    for named, origins in sides:
        for pair in named:
            pairs[pair] |= origins
    return pairs


def _path_edges(stage_runs: Iterable[StageRun], manifests: Manifests) -> Edges:
    """From an out to the deps of the same lock version that cover it, or that lie in it while nobody knows its members.

    Hundreds of versions repeat most of what they name, so each path's content is looked at once, with the versions that have it.
    """
    told = [run for run in stage_runs if run.origins]
    edges: Edges = defaultdict(set)
    below: dict[str, list[tuple[str, set[str]]]] = defaultdict(list)  # folder or path -> outs at or below it
    opaque: dict[str, list[tuple[str, set[str]]]] = defaultdict(list)
    for (path, md5), origins in _pairs((run.outs, run.origins) for run in told).items():
        for place in (path, *map(str, PurePosixPath(path).parents)):
            below[place].append((md5, origins))
        if md5.endswith(FOLDER) and md5 not in manifests:
            opaque[path].append((md5, origins))
    for (path, md5), origins in _pairs((run.deps, run.origins) for run in told).items():
        above = (out for parent in PurePosixPath(path).parents for out in opaque.get(str(parent), ()))
        for out, theirs in (*below.get(path, ()), *above):
            if not origins.isdisjoint(theirs):
                edges[out].add(md5)
    return edges


def _run_edges(stage_runs: list[StageRun], manifests: Manifests) -> Edges:
    """For deps of run entries that no lock version explains: any out at, below or (members unknown) above may be in them.

    Nothing can show that such a dep is clean. Only cached runs that no lock version names are lost by that.
    """
    known = {md5 for members in manifests.values() for md5 in members.values()} | set(manifests)
    known |= {md5 for stage_run in stage_runs for _, md5 in stage_run.outs}
    known |= {md5 for stage_run in stage_runs if stage_run.origins for _, md5 in stage_run.deps}
    unknown = {pair for stage_run in stage_runs if not stage_run.origins for pair in stage_run.deps if pair[1] not in known}
    edges: Edges = defaultdict(set)
    if unknown:
        for out_path, out in {pair for stage_run in stage_runs for pair in stage_run.outs}:
            opaque = out.endswith(FOLDER) and out not in manifests
            for path, md5 in unknown:
                if covers(path, out_path) or (opaque and covers(out_path, path)):
                    edges[out].add(md5)
    return edges


def _reached(
    sources: frozenset[str], edges: Edges, triggers: dict[str, list[int]], produced: Produced, stop: set[str]
) -> set[str]:
    """All tainted content: everything reachable from the sources without entering `stop`."""
    tainted = set(sources)
    waiting = list(sources)
    ran: set[int] = set()
    while waiting:
        md5 = waiting.pop()
        following = set(edges.get(md5, ()))
        for number in triggers.get(md5, ()):
            if number not in ran:
                ran.add(number)
                following |= produced[number]
        fresh = following - tainted - stop
        tainted |= fresh
        waiting.extend(fresh)
    return tainted


def with_members(md5s: Iterable[str], manifests: Manifests) -> frozenset[str]:
    """The MD5s and those of everything in their folders."""
    named = set(md5s)
    return frozenset(named.union(*(manifests[md5].values() for md5 in named if md5 in manifests)))


def condemn(
    stage_runs: Iterable[StageRun],
    manifests: Manifests,
    raw: Iterable[str],
    live: Iterable[str],
    suspects: Iterable[str] = (),
    trusted: bool = False,
) -> Condemned:
    """Decide what goes.

    Args:
        raw: MD5s of objects that were seen to hold a record of the subjects.
        live: outs and deps of the current dvc.lock; their members are added here. Never condemned.
        suspects: MD5s that go too unless a clean stage run made them: condemned before.
        trusted: take deps of cached runs that no lock version explains for clean (see `_run_edges`).
    Returns: a set that does not depend on the order of anything.
    """
    distinct = list(set(stage_runs))
    executions = list({(stage_run.deps, stage_run.outs) for stage_run in distinct})  # versions of dvc.lock repeat most of them
    kept = with_members(live, manifests)
    seen = frozenset(raw) - kept
    doubtful = frozenset(suspects) - kept
    holders = {folder for folder, members in manifests.items() if not seen.isdisjoint(members.values())}
    edges = _content_edges(manifests)
    for more in (_path_edges(distinct, manifests), {} if trusted else _run_edges(distinct, manifests)):
        for md5, targets in more.items():
            edges[md5] |= targets
    produced = [with_members((md5 for _, md5 in outs), manifests) for _, outs in executions]
    triggers: dict[str, list[int]] = defaultdict(list)
    for number, (deps, _) in enumerate(executions):
        for _, md5 in deps:
            triggers[md5].append(number)

    derived = {md5 for number, (deps, _) in enumerate(executions) if deps for md5 in produced[number]}
    vouched = [made if executions[number][0] else made - derived for number, made in enumerate(produced)]
    exempt: set[str] = set()
    while True:
        stop = (exempt - seen - holders) | kept
        tainted = _reached(seen | (doubtful - stop), edges, triggers, produced, stop)
        clean = [number for number, (deps, _) in enumerate(executions) if tainted.isdisjoint(md5 for _, md5 in deps)]
        now = set().union(*(vouched[number] for number in clean))
        if now <= exempt:
            break
        exempt |= now
    entries = {
        stage_run.run_entry
        for stage_run in distinct
        if stage_run.run_entry and not tainted.isdisjoint(md5 for _, md5 in (*stage_run.deps, *stage_run.outs))
    }
    return Condemned(frozenset(tainted), frozenset(entries))
