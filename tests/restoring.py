"""Backups of a fake project, and restores of parts of them: the stores of which each may be restored alone."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fake_pipeline import FakePipeline

# What of the folder that holds project and remote belongs to a store.
STORES: dict[str, tuple[str, ...]] = {
    "source": ("project/people",),
    "cache": ("project/.dvc/cache",),
    "remote": ("remote",),
    "ledger": ("project/.lmeraser/ledger.db", "project/.lmeraser/ledger.db-wal", "project/.lmeraser/ledger.db-shm"),
    "private state": ("project/.lmeraser",),
    "artifacts": ("project/artifacts", "project/metrics"),
    "locks": ("project/dvc.lock",),
    "list": ("project/data/erased.json",),
    "certificates": ("project/certificates",),
    "working tree": ("project/artifacts", "project/metrics", "project/dvc.lock", "project/data", "project/certificates"),
}
EVERYTHING = tuple(STORES)


@dataclass(frozen=True)
class Backup:
    """A copy of all stores at one time."""

    folder: Path

    @classmethod
    def of(cls, pipeline: FakePipeline, folder: Path) -> "Backup":
        shutil.copytree(pipeline.root.parent, folder)
        return cls(folder)

    def restore(self, pipeline: FakePipeline, stores: Iterable[str] = EVERYTHING) -> None:
        """Make stores what they were, as a backup program does: what came later is gone."""
        with pipeline.process() as project:
            project.ledger.head()  # and lets go of its file: no process of the fake has it open any more
        for name in sorted({name for store in stores for name in STORES[store]}):
            here, kept = pipeline.root.parent / name, self.folder / name
            if here.is_dir():
                shutil.rmtree(here)
            here.unlink(missing_ok=True)
            if kept.is_dir():
                shutil.copytree(kept, here)
            elif kept.exists():
                shutil.copy2(kept, here)

    def push(self, pipeline: FakePipeline, *places: str) -> None:
        """Write all that places held, as a stale clone or mirror does: what came later stays."""
        for place in places:
            shutil.copytree(self.folder / place, pipeline.root.parent / place, dirs_exist_ok=True)


def keep_certificates(pipeline: FakePipeline, folder: Path) -> Path:
    """A copy of the certificates elsewhere."""
    return Path(shutil.copytree(pipeline.layout.certificates, folder, dirs_exist_ok=True))
