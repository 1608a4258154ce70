"""Projects whose locks and stores are written by hand, with a real git: what purge reads, and nothing that DVC must build."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from builders import make_record, png

from flows.purge import step as purge
from lmeraser.core.layout import Layout
from lmeraser.data.records import Record, write_records
from unit.tiny_projects import Stage, lock_text, manifest_of, md5_of, object_key

HER, BOB = "CANARY-anna-7f3", "bobby-tables"


@dataclass
class Yard:
    """A project with a cache of its own and a remote, and nothing built but what a test puts there."""

    root: Path

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    @property
    def cache(self) -> Path:
        return self.root / ".dvc" / "cache"

    @property
    def remote(self) -> Path:
        return self.root.parent / "remote"

    def git(self, *arguments: str) -> None:
        git = ["git", "-C", str(self.root), "-c", "user.name=t", "-c", "user.email=t@localhost"]
        subprocess.run([*git, *arguments], check=True, capture_output=True)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "state")

    def store(self, content: bytes, *stores: Path, folder: bool = False) -> str:
        """Put an object into the cache and the remote, or where it is said; returns its MD5."""
        md5 = md5_of(content) + (".dir" if folder else "")
        for place in stores or (self.cache, self.remote):
            path = place / object_key(md5)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return md5

    def folder(self, members: Mapping[str, str], *stores: Path) -> str:
        return self.store(manifest_of(members), *stores, folder=True)

    def part(self, *records: tuple[Record, bytes]) -> bytes:
        path = self.root / "draft.parquet"
        write_records(path, records)
        content = path.read_bytes()
        path.unlink()
        return content

    def lock(self, name: str, **stages: Stage) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(lock_text(stages))

    def build(self, *records: tuple[Record, bytes], model: bytes) -> dict[str, str]:
        """Write, store and lock one state: a part, and a model made of it."""
        part = self.part(*records)
        self.layout.part("p00").parent.mkdir(parents=True, exist_ok=True)
        self.layout.part("p00").write_bytes(part)
        made = {"part": self.store(part), "model": self.store(model)}
        made["private"] = self.folder({"p00.parquet": made["part"]})
        self.lock(
            "dvc.lock",
            split=({"people": "1" * 32}, {"artifacts/split/private": made["private"]}),
            tune=({"artifacts/split/private/p00.parquet": made["part"]}, {"artifacts/tune/c00.safetensors": made["model"]}),
        )
        return made

    def objects_in(self, store: Path) -> set[str]:
        return {path.parent.name + path.name for path in (store / "files" / "md5").glob("*/*")}

    def purge(self) -> purge.PurgePlan:
        planned = purge.plan(self.layout, lambda subject: subject == HER)
        purge.carry_out(self.layout, planned.journal)
        return planned


HERS = (make_record(HER, image=png(1)), png(1))
BOBS = (make_record(BOB, image=png(2)), png(2))


def make_yard(root: Path, git: bool = True) -> Yard:
    made = Yard(root)
    (root / ".dvc").mkdir(parents=True)
    made.remote.mkdir(exist_ok=True)
    (root / ".dvc" / "config").write_text(f"['remote \"disk\"']\n    url = {made.remote}\n")
    (root / ".gitignore").write_text("/.dvc/cache\n/artifacts\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "params.yaml").write_text("")
    if git:
        made.git("init", "--quiet")
    return made


def two_states(yard: Yard) -> tuple[dict[str, str], dict[str, str]]:
    """She was in the first, committed state; the working tree holds the one without her."""
    old = yard.build(HERS, BOBS, model=b"a model of everybody")
    yard.commit()
    return old, yard.build(BOBS, model=b"a model without her")
