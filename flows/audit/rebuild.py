"""audit --rebuild: build again from the retained records alone, in a clean copy with an empty cache, and compare every out.

The copy is given a source that never had the erased subjects and an empty list of erased ones, so equality says: these artifacts
are, byte for byte, those of a project that never saw them.
"""

import tempfile
from pathlib import Path

import yaml

from flows import git
from flows.dvc import command as dvc
from flows.project import Project
from flows.purge.leftovers import AUDIT, mark_audit
from flows.run.build import build
from lmeraser.core.digest import sha256
from lmeraser.core.layout import Layout
from lmeraser.core.params import HUB
from lmeraser.core.progress import say, track
from lmeraser.data.records import read_table
from lmeraser.erase.corrections import ROW, Corrections, corrected
from lmeraser.erase.erased import ErasedList, SuppressionList
from lmeraser.erase.retained import record_files
from lmeraser.pipeline.files import is_lock
from lmeraser.pipeline.locks import Comparison, compare, read_files, read_outs
from lmeraser.sources import COLUMNS, open_source

SOURCE = "retained"  # folder of the copy's source
SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff\xe0": ".jpg", b"RIFF": ".webp"}


def copy_code(origin: Path, target: Path) -> None:
    """Copy what git would keep (tracked, and new but not ignored) as it is in the working tree, without what was built."""
    made = ("metrics/", "certificates/", "data/certificate-keys.pem", "data/project-id")
    for name in git.would_keep(origin):
        source = origin / name
        if name.startswith(made) or is_lock(name) or not source.is_file():
            continue
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
        copy.chmod(source.stat().st_mode)
    git.init(target)


def people_back(project: Project) -> int:
    """How many people, images and old values are in the parts, or in the public records, that a list keeps out: an older state
    came back."""
    suppression_list = SuppressionList.of(project.layout)
    files = record_files(project.layout, project.params)
    subjects = {subject for file in files for subject in read_table(file, ("subject",))["subject"].unique().to_pylist()}
    back = sum(map(suppression_list.is_erased, subjects))
    if suppression_list.images:
        digests = {digest for file in files for digest in read_table(file, ("sha256",))["sha256"].unique().to_pylist()}
        back += len(suppression_list.images.among(digests))
    if corrections := Corrections.of(suppression_list):
        back += sum(len(corrections.old_rows(read_table(file, ROW))) for file in files)
    return back


def export_retained(project: Project, folder: Path) -> int:
    """Write a manifest source that holds the retained records and nothing else; returns how many rows."""
    suppression_list = SuppressionList.of(project.layout)
    source = corrected(open_source(project.params.source, project.layout.root), suppression_list)
    table = source.table()
    retained = table[~table["subject"].map({s: suppression_list.is_erased(s) for s in table["subject"].unique()})].copy()
    images = folder / "images"
    images.mkdir(parents=True)
    names: list[str | None] = []
    for row in track(retained.itertuples(index=False), len(retained), "audit: retained records", "image"):
        image = source.image(str(row.path))
        if sha256(image) in suppression_list.images:
            names.append(None)
            continue
        # Named by its place in a shuffled list: neither the old path nor the old order may matter.
        name = f"images/{sha256(f'{row.line}'.encode())[:24]}{SUFFIXES.get(image[:4], '.img')}"
        (folder / name).write_bytes(image)
        names.append(name)
    retained["path"] = names
    retained = retained.dropna(subset="path")
    retained.sort_values("path").to_csv(folder / "manifest.csv", columns=list(COLUMNS), index=False)
    return len(retained)


def rebuild(project: Project) -> Comparison:
    """Rebuild in a temporary copy and compare the files themselves, of every out. Raises: ProjectError, StepFailedError."""
    dvc.require_current(project.layout, whole=True)
    recorded = read_outs(project.layout.lock)
    present = read_files(project.layout.root, recorded)
    for lost in recorded.keys() - present.keys():
        present[lost] = "missing"
    with tempfile.TemporaryDirectory(prefix=AUDIT) as name:
        mark_audit(Path(name), project.layout)  # so that a purge knows whose it is, should we be killed
        copy = Path(name) / "project"
        copy.mkdir()
        copy_code(project.layout.root, copy)
        rows = export_retained(project, Path(name) / SOURCE)
        layout = Layout(copy)
        ErasedList(None, frozenset()).write(layout.erased)
        # A cache of its own, whatever the project's or the user's settings name: nothing may be taken from elsewhere.
        (copy / ".dvc" / "config.local").write_text("[cache]\n    dir = cache\n", encoding="utf-8")
        raw = yaml.safe_load(layout.params.read_text(encoding="utf-8"))
        raw["source"] = {"kind": "manifest", "path": str(Path(name) / SOURCE), "erase": False}
        weights = raw["pretrain"]["weights"]
        if weights and weights["file"] != HUB:  # the digest beside it says that it is the same file
            weights["file"] = str(project.layout.root.absolute() / weights["file"])
        layout.params.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
        say(f"audit: building again from {rows} retained records in a clean copy")
        build(layout)
        return compare(present, read_files(layout.root, read_outs(layout.lock)))
