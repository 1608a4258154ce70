"""The scan of every store, in a process of its own: `python -m flows.purge.scan PROJECT < terms.json`.

A new process shares no memory, no open file and no cached listing with the purge. Search terms are personal data: they
come through standard input alone, and what goes out is counts and names of files that git tracks. They are kept in
`.lmeraser` from before the first delete until a scan found none of them: afterwards nobody could tell them any more, and a
second try would look for less.
What is not looked into (git's history, virtual environments, the source if params keep it, what links lead to outside the
project) is told in `exempt`.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows import git, processes
from flows.dvc import config as remotes
from flows.purge import plan as purge
from flows.purge.git_history import Repository
from flows.purge.leftovers import abandoned_audits
from flows.purge.lineage import IsErased
from flows.purge.plan import Planned
from flows.purge.prefect_events import prefect_home
from flows.purge.raw_objects import marks_of, search_terms_of
from lmeraser.core.digest import canonical_json
from lmeraser.core.errors import LmeraserError, ProjectError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.erase.erased import SuppressionList
from lmeraser.prove import scan as search
from lmeraser.prove.parquet import UNREADABLE
from lmeraser.prove.search_terms import SearchTerms
from lmeraser.stores.base import Store
from lmeraser.stores.bucket import BucketStore
from lmeraser.stores.folder import FolderStore

ScanReport = dict[str, Any]
KEPT = ".needles"  # the suffix of what a batch's scan looks for
DRAFT = f"{KEPT}.draft"
LINE, SHOWN = 480, 3  # characters of a line of a certificate; files that a message names


def _inside(layout: Layout, path: Path) -> str | None:
    """A path below the project, relative to it; None if it lies elsewhere."""
    path = path.resolve()
    return path.relative_to(layout.root).as_posix() if path != layout.root and path.is_relative_to(layout.root) else None


ENVIRONMENT = ("bin", "include", "lib", "lib64", "share", "Scripts", "Include", "Lib")  # what venv and pip write


def _environments(layout: Layout) -> list[Path]:
    """Folders of real virtual environments, at any depth: others that hold a pyvenv.cfg are folders like any other."""
    found = []
    tree = FolderStore("workspace", layout.root, skip=frozenset({".git", ".dvc"}))
    for mark in (layout.root / entry.key for entry in tree.entries() if entry.key.rpartition("/")[2] == "pyvenv.cfg"):
        programs = [mark.parent / name for name in ("bin/python", "Scripts/python.exe")]
        if any(os.path.lexists(program) for program in programs):
            found += [mark.parent / name for name in ENVIRONMENT if (mark.parent / name).is_dir()]
    return found


def places(layout: Layout, params: Params) -> tuple[list[Store], list[str]]:
    """Every place that the project controls; and what of it is not looked into, in words without names."""
    kept, site, prefect = remotes.stores(layout), remotes.site_folders(layout), prefect_home()
    source = layout.root / params.source.path
    apart = [store.root for store in kept if isinstance(store, FolderStore)] + site + [layout.private_state, prefect]
    exempt = ["git's own folder: the repository's history keeps the files of older commits, also those that name people"]
    if not params.source.erase:
        apart.append(source)
        exempt.append("the source: source.erase is false")
    environments = _environments(layout)
    if environments:
        exempt.append(f"{len(environments)} folders of virtual environments (bin, lib, include beside a pyvenv.cfg)")
    if any(isinstance(store, BucketStore) for store in kept):
        exempt.append("older versions in a bucket under keys that are not condemned: listed, not read")
    skip = frozenset(name for path in [*apart, *environments] if (name := _inside(layout, path)))
    found: list[Store] = [FolderStore("workspace", layout.root, skip=skip | {".git"})]
    search_terms = frozenset(path.name for path in layout.private_state.glob(f"*{KEPT}*"))
    found.append(FolderStore("ledger, keys and logs", layout.private_state, skip=search_terms))
    if search_terms:
        exempt.append("what this scan looks for, kept in .lmeraser until nothing of it is found")
    found += kept
    found += [FolderStore("dvc site", path) for path in site]
    found += [FolderStore("temporary files", path) for path in abandoned_audits(layout)]
    found.append(FolderStore("prefect", prefect))
    if params.source.erase and _inside(layout, source) is None:
        found.append(FolderStore("source", source if source.is_dir() else source.parent))
    return found, exempt


def search_terms_for(layout: Layout, planned: Planned, is_erased: IsErased, canaries: Iterable[str] = ()) -> SearchTerms:
    """What to look for after the purge; to be called before it, while the records can still be read.

    What retained records share (an identical image, a name within a name) is no sign of the erased ones: see `search_terms_of`.
    """
    found = search_terms_of(layout, marks_of(planned.known, planned.raw, is_erased))
    objects, entries = frozenset(planned.journal["objects"]), frozenset(planned.journal["run_entries"])
    return replace(found, objects=objects, run_entries=entries, texts=found.texts | set(canaries))


def _needles_path(layout: Layout, batch_id: str) -> Path:
    return layout.private_state / f"{batch_id}{KEPT}"


def keep_search_terms(layout: Layout, batch_id: str, search_terms: SearchTerms) -> None:
    """Store what to look for, for its owner alone; `drop_search_terms` once nothing of it is found."""
    draft = layout.private_state / f"{batch_id}{DRAFT}"  # a name of its own: what a kill leaves of it goes with the rest
    with open(draft, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
        stream.write(canonical_json(search_terms.to_json()))
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(_needles_path(layout, batch_id))


def kept_search_terms(layout: Layout, batch_id: str) -> SearchTerms | None:
    """What an earlier try looked for; None if there was none. Raises: ProjectError if the file is damaged."""
    path = _needles_path(layout, batch_id)
    return _read_search_terms(path) if path.exists() else None


def _read_search_terms(path: Path) -> SearchTerms:
    try:
        return SearchTerms.from_json(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProjectError(
            "the file of what must not be found (.needles in .lmeraser) is damaged; delete it: the scan goes by digests then"
        ) from error


def drop_search_terms(layout: Layout, batch_id: str) -> None:
    for suffix in (DRAFT, KEPT):
        (layout.private_state / f"{batch_id}{suffix}").unlink(missing_ok=True)


def scan_stores(layout: Layout, search_terms: SearchTerms, pseudonyms: Iterable[str] = ()) -> ScanReport:
    """Scan in a new process: for the terms, for everybody on the lists, and for those behind the pseudonyms, whatever lists say.

    Returns {clean, stores: [{store, objects, bytes, residue: [{store, kind, count}], where}], exempt}.

    Raises: StepFailedError if a store could not be looked at, or if nothing was.
    """
    done = processes.read_only(
        [sys.executable, "-m", "flows.purge.scan", str(layout.root)],
        layout.root,
        json.dumps({"search_terms": search_terms.to_json(), "pseudonyms": sorted(pseudonyms)}).encode(),
        processes.environment_of(layout),
    )
    if done.returncode:
        complaint = done.stderr.decode(errors="replace")
        lines = [line.removeprefix("error: ") for line in complaint.splitlines() if line.startswith("error: ")]
        # A traceback's text may hold a path; its last line begins with the kind of error, which holds none.
        kind = (complaint.strip().splitlines() or [""])[-1].partition(":")[0]
        kind = kind if kind.isidentifier() else f"exit status {done.returncode}"
        raise StepFailedError(
            lines[0] if lines else f"the scan of all stores failed ({kind}); `lmeraser audit --stores` repeats it"
        )
    told: ScanReport = json.loads(done.stdout)
    return told


def audit_stores(layout: Layout, canaries: Iterable[str] = ()) -> ScanReport:
    """`lmeraser audit --stores`: look for all that was ever condemned, for every erased subject, and for the user's canaries; and
    for what a scan of an open request found."""
    gone = purge.remembered(layout)
    search_terms = SearchTerms(gone.objects, gone.run_entries, texts=frozenset(filter(None, canaries)))
    for path in sorted(layout.private_state.glob(f"*{KEPT}")):
        search_terms = search_terms.with_words_of(_read_search_terms(path))
    told = scan_stores(layout, search_terms)
    unknown, problem = purge.told_unknown(layout)
    for row in told["stores"]:
        row["unknown"] = unknown.get(row["store"], 0)
    if problem:
        told["exempt"].append(f"objects that nobody can tell what they were made of: {problem}")
    return told


def checks(found: ScanReport, known_by_bytes: bool, unknown: dict[str, int]) -> list[tuple[str, str]]:
    """What a certificate says of a scan that found nothing: pairs of a check and its result, each a line below 500 characters."""
    how = "by digest, content and bytes" if known_by_bytes else "by digest and content; what bytes are known by was lost"
    size = sum(one["objects"] for one in found["stores"])
    pairs = [(f"a new process found nothing left in {len(found['stores'])} stores", f"{how}, {size} files")]
    pairs += [("not looked into, or does not count", line[:LINE]) for line in found["exempt"]]
    if unknown:
        pairs.append(("objects that no known version of the pipeline names: accepted, they stay", purge.by_store(unknown)[:LINE]))
    return pairs


def left(found: ScanReport) -> str:
    """Where a scan found something, by store; and the files that could not be read, if git tracks them. The ledger keeps it."""
    rows = [one for one in found["stores"] if one["residue"]]
    counts = ", ".join(f"{one['store']}: {sum(kind['count'] for kind in one['residue'])}" for one in rows)
    closed = sum(kind["count"] for one in rows for kind in one["residue"] if kind["kind"] == UNREADABLE)
    files = [name for one in rows for name in one["unreadable"]]
    named = f" ({', '.join(files[:SHOWN])})" if files else ""
    return f"({counts})" + (f", {closed} of them files that cannot be read{named}" if closed else "")


def _tracked(layout: Layout, looked: search.StoreReport, keys: Iterable[str]) -> list[str]:
    """Which of these files have names that everybody has who has the repository; other names may be personal."""
    wanted = set(keys)
    if looked.store != "workspace" or not wanted:
        return []
    return sorted(wanted & git.tracked(layout.root))


def _exempt(stores: list[Store], looked: list[search.StoreReport]) -> list[str]:
    """What was not looked into in the stores, in words and counts."""
    roots = [os.path.realpath(store.root) for store in stores if isinstance(store, FolderStore)]
    links = {path for one in looked for path in one.links}
    outside = [path for path in links if not any(path == root or path.startswith(root + os.sep) for root in roots)]
    counts: Counter[str] = Counter()
    for one in looked:
        counts.update(one.exempt)
    told = [f"{count} {text}" for text, count in sorted(counts.items())]
    return [*told, *([f"{len(outside)} linked files or folders outside the project: links are not followed"] if outside else [])]


def _merged(layout: Layout, looked: list[search.StoreReport]) -> list[ScanReport]:
    """One row a store: some have several folders."""
    rows: dict[str, ScanReport] = {}
    for one in looked:
        row = rows.setdefault(
            one.store, {"store": one.store, "objects": 0, "bytes": 0, "residue": [], "where": [], "unreadable": []}
        )
        row["objects"] += one.objects
        row["bytes"] += one.bytes
        row["residue"] += one.to_json()["residue"]
        row["where"] += _tracked(layout, one, one.where)
        row["unreadable"] += _tracked(layout, one, one.closed)
    return list(rows.values())


def look(layout: Layout, search_terms: SearchTerms, pseudonyms: Iterable[str] = ()) -> ScanReport:
    """The scan itself, in this process."""
    suppression_list = SuppressionList.of(layout, pseudonyms)
    # Content that the current dvc.lock names is not condemned any more: a clean run made it again.
    live = purge.live(layout)[0]
    current = replace(search_terms, objects=search_terms.objects - live)
    stores, exempt = places(layout, load_params(layout.params))
    looked = search.scan(stores, current, suppression_list.is_erased)
    problem = Repository.of(layout).problem
    exempt += [f"older versions of the pipeline: git's history cannot be read whole ({problem})"] if problem else []
    told = [*search_terms.exempt(), *exempt, *_exempt(stores, looked)]
    return {"clean": not any(one.residue for one in looked), "stores": _merged(layout, looked), "exempt": told}


def main() -> int:
    try:
        layout = Layout(Path(sys.argv[1]).resolve())
        asked = json.load(sys.stdin)
        told = look(layout, SearchTerms.from_json(asked["search_terms"]), asked["pseudonyms"])
    except LmeraserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
