"""A project whose real stages run in this process over a tiny backbone: no DVC, no subprocess."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from builders import TINY, Lab, Row, contents, raw_params, write_source

from lmeraser.clusters.skeleton import save_skeleton
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.erase.erased import ErasedList, load_or_create_key
from lmeraser.pipeline.before import Before, link_before, open_before
from lmeraser.pipeline.locks import md5_of_file
from lmeraser.pipeline.recipe import save_recipe
from stages.cluster import cluster
from stages.embed import embed
from stages.head import head
from stages.split import split
from stages.update.cluster import update as update_cluster
from stages.update.embed import update as update_embed
from stages.update.split import update as update_split

PARTS = ["p00", "p01", "p02"]
LABELS = ("one", "two", "three")


@dataclass(frozen=True)
class Project:
    """A project whose stages run in this process; backbone and skeleton are a lab's."""

    layout: Layout
    lab: Lab

    @classmethod
    def make(cls, root: Path, lab: Lab, changes: dict[str, Any]) -> "Project":
        root.mkdir(parents=True)
        source = {"source": {"kind": "manifest", "path": "people", "erase": False}, "parts": PARTS}
        raw = raw_params(TINY | changes | source | {"slots": [f"c{place:02d}" for place in range(6)], "cluster.n_max": 5})
        (root / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
        made = cls(Layout(root), lab)
        ErasedList(None, frozenset()).write(made.layout.erased)
        made.layout.backbone.parent.mkdir(parents=True)
        shutil.copy(lab.backbone_file, made.layout.backbone)
        save_skeleton(made.layout.skeleton, lab.skeleton, {})
        save_recipe(made.layout, made.params)
        return made

    @property
    def params(self) -> Params:
        return load_params(self.layout.params)

    def give(self, rows: Sequence[Row]) -> None:
        shutil.rmtree(self.layout.root / "people", ignore_errors=True)
        write_source(self.layout.root / "people", rows)

    def erase(self, people: set[str]) -> None:
        key = load_or_create_key(self.layout.private_state / "subject.key")
        ErasedList.known(self.layout).add(map(key.pseudonym, people), key).write(self.layout.erased)

    def run_whole(self) -> None:
        for stage, items in ((split, []), (embed, PARTS), (cluster, []), (head, [])):
            stage(self.layout, self.params, items)

    def before(self, parts: Sequence[str] | None) -> Before:
        """The state now, linked, as the one before what comes."""
        made = [path for path in self.layout.artifacts.rglob("*") if path.is_file()]
        digests = {path.relative_to(self.layout.root).as_posix(): md5_of_file(path) for path in made}
        link_before(self.layout, self.layout.before("batch"), digests, parts)
        opened = open_before(self.layout.before("batch"), self.layout)
        assert opened is not None
        return opened

    def update(self, before: Before) -> None:
        """What a chain does; nothing may fall back to a whole run."""
        assert update_split(before, self.layout, self.params, [])
        changed = [part for part in PARTS if not before.has_same(self.layout.part(part), layout=self.layout)]
        assert update_embed(before, self.layout, self.params, changed)
        assert update_cluster(before, self.layout, self.params, [])
        head(self.layout, self.params, [])

    @property
    def files(self) -> dict[str, bytes]:
        return contents(self.layout.artifacts)


def crowd(rng: np.random.Generator, people: int, start: int = 0) -> list[Row]:
    rows = []
    for number in range(start, start + people):
        for _ in range(int(rng.integers(1, 4))):
            split_name = "test" if rng.random() < 0.2 else "train"
            rows.append(Row(f"anna-{number}", str(rng.choice(LABELS)), split=split_name, seed=int(rng.integers(2**31))))
    return rows


STOCK = [Row(f"stock-{number}", LABELS[number % 3], "public", seed=number) for number in range(6)]
ANCHORS = [Row(f"stays-{number}", LABELS[number % 3], seed=50 + number) for number in range(3)]  # two labels are always left


def named(rows: Sequence[Row]) -> list[Row]:
    return [Row(row.subject, row.label, row.visibility, row.split, row.seed, f"{row.seed}.png") for row in rows]
