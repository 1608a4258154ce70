"""A project beside its remote, from which a person was erased and nothing is purged yet."""

import json
import subprocess
from pathlib import Path
from typing import Any

from sandbox import AWS, CANARY, Sandbox, files

from flows.purge import step as purge
from flows.purge.step import PurgeJournal, PurgePlan
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.erase.erased import ErasedList, SuppressionList, key_path

BATCH = "00000000-0000-4000-8000-000000000001"


class Scene(Sandbox):
    """A project beside its remote: `main`, from which a person was erased; `other` never had her; `with` still has her."""

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    @property
    def params(self) -> Params:
        return load_params(self.layout.params)

    @property
    def disk(self) -> Path:
        return self.root.parent / "remote"

    @property
    def cache(self) -> Path:
        return self.root / ".dvc" / "cache"

    def git(self, *arguments: str) -> str:
        git = ["git", "-C", str(self.root), "-c", "user.name=test", "-c", "user.email=test@localhost"]
        return subprocess.run([*git, *arguments], check=True, capture_output=True, text=True).stdout

    def is_erased(self, subject: str) -> bool:
        return SuppressionList(ErasedList.read(self.layout.erased), key_path(self.layout.private_state)).is_erased(subject)

    def plan(self) -> tuple[PurgePlan, Any]:
        planned = purge.plan(self.layout, self.is_erased)
        return planned, planned.search_terms

    def purge(self) -> tuple[PurgeJournal, Any]:
        planned, search_terms = self.plan()
        purge.write_journal(self.layout, BATCH, planned.journal)
        purge.carry_out(self.layout, planned.journal)
        return planned.journal, search_terms

    def local_residue(self, search_terms: Any) -> set[str]:
        """Condemned objects that still lie in the cache or in the remote on disk."""
        stored = {name.split("files/md5/")[-1].replace("/", "") for name in (*files(self.cache), *files(self.disk))}
        return stored & set(search_terms.objects)

    def residue(self, search_terms: Any) -> dict[str, set[str]]:
        report = purge.scan_stores(self.layout, search_terms)
        kinds = {row.store: {residue.kind for residue in row.residue} for row in report.stores if row.residue}
        assert report.clean == (not kinds)
        assert CANARY not in json.dumps(report.to_json())
        return kinds


def victim(project: Sandbox) -> str:
    """Somebody with training records."""
    return project.people()[3]


def pulls(scene: Scene, branch: str, endpoint: str = "", bucket: str = "") -> "subprocess.CompletedProcess[str]":
    """`dvc pull` of a branch in a fresh clone, from the disk or from a bucket."""
    clone = scene.root.parent / f"clone-{branch}"
    subprocess.run(["git", "clone", "--quiet", "--branch", branch, str(scene.root), str(clone)], check=True)
    if bucket:
        remote = f"['remote \"disk\"']\n    url = s3://{bucket}/some/prefix\n    endpointurl = {endpoint}\n"
        (clone / ".dvc" / "config.local").write_text(remote)
    return Sandbox(clone).python("-m", "dvc", "pull", env=AWS)
