"""The scan of every store, in a process of its own: `python -m flows.scan PROJECT < needles.json`.

A new process shares no memory, no open file and no cached listing with the purge. Needles are personal data: they come through
standard input alone, and what goes out is counts and names of files that git tracks. They are kept in `.lmeraser` from before the
first delete until a scan found none of them: afterwards nobody could tell them any more, and a second try would look for less.
Not looked into: `.git` (compressed, and it holds digests only), virtual
environments, and the source if params keep it (`source.erase: false`).
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows import lineage, purge, remotes
from flows.dvc import surroundings
from flows.leftovers import abandoned_audits
from flows.lineage import IsErased
from flows.prefect_storage import prefect_home
from flows.purge import Planned
from lmeraser.core.digest import canonical_json
from lmeraser.core.errors import LmeraserError, ProjectError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.erase.erased import ErasedList, Gatekeeper, key_path
from lmeraser.prove import scan as search
from lmeraser.prove.scan import SHORTEST_NAME, Finder, Needles, excerpts
from lmeraser.stores.base import Store
from lmeraser.stores.folder import FolderStore

Told = dict[str, Any]
KEPT = ".needles"  # the suffix of what a batch's scan looks for
DRAFT = f"{KEPT}.draft"


def _inside(layout: Layout, path: Path) -> str | None:
    """A path below the project, relative to it; None if it lies elsewhere."""
    path = path.resolve()
    return path.relative_to(layout.root).as_posix() if path != layout.root and path.is_relative_to(layout.root) else None


def places(layout: Layout, params: Params) -> list[Store]:
    """Every place that the project controls."""
    kept = remotes.stores(layout)
    site = remotes.site_folders(layout)
    source = Path(params.source.path)
    source = source if source.is_absolute() else layout.root / source
    prefect = prefect_home()
    apart = [store.root for store in kept if isinstance(store, FolderStore)] + site + [layout.private_state, prefect]
    if not params.source.erase:
        apart.append(source)
    environments = [path.parent for path in layout.root.glob("*/pyvenv.cfg")]
    skip = frozenset(name for path in [*apart, *environments] if (name := _inside(layout, path)))
    found: list[Store] = [FolderStore("workspace", layout.root, skip=skip | {".git"})]
    needles = frozenset(path.name for path in layout.private_state.glob(f"*{KEPT}*"))
    found.append(FolderStore("ledger, keys and logs", layout.private_state, skip=needles))
    found += kept
    found += [FolderStore("dvc site", path) for path in site]
    found += [FolderStore("temporary files", path) for path in abandoned_audits(layout)]
    found.append(FolderStore("prefect", prefect))
    if params.source.erase and _inside(layout, source) is None:
        found.append(FolderStore("source", source if source.is_dir() else source.parent))
    return found


def needles_for(layout: Layout, params: Params, planned: Planned, is_erased: IsErased, canaries: Iterable[str] = ()) -> Needles:
    """What to look for after the purge; to be called before it, while the records can still be read.

    What retained records share (an identical image, a name within a name) is no sign of the erased ones and is left out.
    """
    ids: set[str] = set()
    digests: set[str] = set()
    names: set[str] = set()
    images: set[bytes] = set()
    for table in lineage.tables(planned.known, planned.raw):
        subjects = [str(one) for one in table["subject"].to_pylist()]
        erased = {one: is_erased(one) for one in set(subjects)}
        names |= {one for one, gone in erased.items() if gone and len(one) >= SHORTEST_NAME}
        for row in table.filter([erased[one] for one in subjects]).to_pylist():
            ids |= {row["id"]} if "id" in row else set()
            digests |= {row["sha256"]} if "sha256" in row else set()
            images |= excerpts(row["image"]) if row.get("image") else set()
    shared = _in_retained(layout, params, Needles(texts=frozenset(digests), names=frozenset(names), images=frozenset(images)))
    return Needles(
        frozenset(planned.journal["objects"]),
        frozenset(planned.journal["run_entries"]),
        frozenset(ids),
        frozenset({one for one in digests if one.encode() not in shared} | set(canaries)),
        frozenset(one for one in names if one.encode() not in shared),
        frozenset(images - shared),
    )


def _needles_path(layout: Layout, batch_id: str) -> Path:
    return layout.private_state / f"{batch_id}{KEPT}"


def keep_needles(layout: Layout, batch_id: str, needles: Needles) -> None:
    """Store what to look for, for its owner alone; `drop_needles` once nothing of it is found."""
    draft = layout.private_state / f"{batch_id}{DRAFT}"  # a name of its own: what a kill leaves of it goes with the rest
    with open(draft, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
        stream.write(canonical_json(needles.to_json()))
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(_needles_path(layout, batch_id))


def kept_needles(layout: Layout, batch_id: str) -> Needles | None:
    """What an earlier try looked for; None if there was none. Raises: ProjectError if the file is damaged."""
    path = _needles_path(layout, batch_id)
    return _read_needles(path) if path.exists() else None


def _read_needles(path: Path) -> Needles:
    try:
        return Needles.from_json(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProjectError(
            "the file of what must not be found (.needles in .lmeraser) is damaged; delete it: the scan goes by digests then"
        ) from error


def drop_needles(layout: Layout, batch_id: str) -> None:
    for suffix in (DRAFT, KEPT):
        (layout.private_state / f"{batch_id}{suffix}").unlink(missing_ok=True)


def _in_retained(layout: Layout, params: Params, needles: Needles) -> set[bytes]:
    """The needles that stand in the retained records."""
    finder = Finder(needles.patterns)
    files = [layout.public, *(layout.part(part) for part in params.parts)]
    return {needle for path in files if path.exists() for _, needle in finder.found(path.read_bytes())}


def scan_stores(layout: Layout, needles: Needles) -> Told:
    """Scan in a new process. Returns {clean, stores: [{store, objects, bytes, residue: [{store, kind, count}], where}]}.

    Raises: StepFailedError if a store could not be looked at, or if nothing was.
    """
    done = subprocess.run(
        [sys.executable, "-m", "flows.scan", str(layout.root)],
        input=json.dumps(needles.to_json()),
        cwd=layout.root,
        env=surroundings(layout),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
        # A traceback's text may hold a path; its last line begins with the kind of error, which holds none.
        kind = (done.stderr.strip().splitlines() or [""])[-1].partition(":")[0]
        kind = kind if kind.isidentifier() else f"exit status {done.returncode}"
        raise StepFailedError(
            lines[0] if lines else f"the scan of all stores failed ({kind}); `lmeraser audit --stores` repeats it"
        )
    told: Told = json.loads(done.stdout)
    return told


def audit_stores(layout: Layout, canaries: Iterable[str] = ()) -> Told:
    """`lmeraser audit --stores`: look for all that was ever condemned, for every erased subject, and for the user's canaries; and
    for what a scan of an open request found."""
    gone = purge.remembered(layout)
    needles = Needles(gone.objects, gone.run_entries, texts=frozenset(filter(None, canaries)))
    for path in sorted(layout.private_state.glob(f"*{KEPT}")):
        needles = needles.with_words_of(_read_needles(path))
    return scan_stores(layout, needles)


def _tracked(layout: Layout, looked: search.Looked) -> list[str]:
    """The files that hold something and whose names everybody has who has the repository; other names may be personal."""
    if looked.store != "workspace" or not looked.where:
        return []
    listed = subprocess.run(["git", "-C", str(layout.root), "ls-files", "-z"], capture_output=True, check=False)
    return sorted(set(looked.where) & set(os.fsdecode(listed.stdout).split("\0")))


def _merged(layout: Layout, looked: list[search.Looked]) -> list[Told]:
    """One row a store: some have several folders."""
    rows: dict[str, Told] = {}
    for one in looked:
        row = rows.setdefault(one.store, {"store": one.store, "objects": 0, "bytes": 0, "residue": [], "where": []})
        row["objects"] += one.objects
        row["bytes"] += one.bytes
        row["residue"] += one.to_json()["residue"]
        row["where"] += _tracked(layout, one)
    return list(rows.values())


def look(layout: Layout, needles: Needles) -> Told:
    """The scan itself, in this process."""
    keeper = Gatekeeper(ErasedList.read(layout.erased), key_path(layout.private_state))
    # Content that the current dvc.lock names is not condemned any more: a clean run made it again.
    live = purge.live(layout)[0]
    current = replace(needles, objects=needles.objects - live)
    looked = search.scan(places(layout, load_params(layout.params)), current, keeper.is_erased)
    return {"clean": not any(one.residue for one in looked), "stores": _merged(layout, looked)}


def main() -> int:
    try:
        layout = Layout(Path(sys.argv[1]).resolve())
        told = look(layout, Needles.from_json(json.load(sys.stdin)))
    except LmeraserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
