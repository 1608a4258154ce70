"""A built project whose tiny model is served: real artifacts, locks as DVC writes them, quarantines as requests make them."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from builders import Lab, Row, encoded, striped, write_source
from numpy.typing import NDArray
from PIL import Image
from staged import ANCHORS, STOCK, Project, crowd, named

from lmeraser.clusters.files import load_router
from lmeraser.clusters.global_head import load_head, save_head
from lmeraser.clusters.skeleton import save_skeleton
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params
from lmeraser.erase.erased import ErasedList, load_or_create_key
from lmeraser.learn.environment import network_environment
from lmeraser.pipeline.locks import read_files
from lmeraser.pipeline.recipe import save_recipe
from lmeraser.serve.live import LiveModel, open_model
from lmeraser.serve.quarantine import Quarantine, copy_artifacts, drop_other_copies, write_quarantine
from stages.tune import tune

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class ServedProject:
    layout: Layout

    @classmethod
    def build(cls, root: Path, lab: Lab, changes: dict[str, Any]) -> "ServedProject":
        project = Project.make(root, lab, {"serve.nearest": 3} | changes)
        save_skeleton(project.layout.skeleton, lab.skeleton, network_environment("cpu"))
        save_recipe(project.layout, project.params)
        rows = named([*STOCK, *ANCHORS, *crowd(np.random.default_rng(3), 40)])
        draw_stripes(root / "people", rows)
        write_source(root / "people", rows)
        project.run_whole()
        tune(project.layout, project.params, [*project.params.slots])
        layout = project.layout
        for path in (layout.public, layout.recipe, layout.validation / "passed.json", layout.validation / "report.json"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        shutil.copy(ROOT / "dvc.yaml", root / "dvc.yaml")
        made = cls(layout)
        made.record()
        return made

    def copy(self, root: Path) -> "ServedProject":
        shutil.copytree(self.layout.root, root)
        return ServedProject(Layout(root))

    @property
    def slots(self) -> list[str]:
        return load_router(self.layout.router)[1]

    def live(self, **options: Any) -> LiveModel:
        return open_model(self.layout, at_once=2, **options)

    def record(self, left: Sequence[str] = ()) -> None:
        """Write dvc.lock as a build ends, by the files. Args: left: stages that stay as the lock has them."""
        params = load_params(self.layout.params)
        defined = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        old = yaml.safe_load(self.layout.lock.read_text())["stages"] if left else {}
        stages = {}
        for kind, stage in defined.items():
            items = {"${parts}": params.parts, "${slots}": params.slots}.get(stage.get("foreach", ""), [""])
            for item in items if kind != "evaluate" else []:
                name = f"{kind}@{item}" if item else kind
                stages[name] = old[name] if name in left else self._entry(stage.get("do", stage), item)
        self.layout.lock.write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))

    def _entry(self, stage: dict[str, Any], item: str) -> dict[str, Any]:
        def named_files(side: str) -> list[dict[str, str]]:
            paths = [path.replace("${item}", item) for path in stage[side]]
            wanted = [path for path in paths if path.startswith(("artifacts", "data/erased"))]
            return [{"path": path, "md5": md5} for path, md5 in read_files(self.layout.root, wanted).items()]

        return {"cmd": stage["cmd"], "deps": named_files("deps"), "outs": named_files("outs")}

    def quarantine(self, slots: Sequence[str], head: str, folder: str = "one", withheld: bool = False) -> None:
        """As a request's acceptance makes it; an interim head is another one than the present."""
        copy = copy_artifacts(self.layout, self.layout, folder)
        if head == "interim":
            solved = load_head(self.layout.head)
            save_head(copy.root / "interim.safetensors", replace(solved, bias=solved.bias + 1e-3))
        write_quarantine(self.layout, Quarantine(folder, list(slots), head, withheld))
        drop_other_copies(self.layout, folder)

    def erase(self, person: str) -> None:
        """On both lists, as the step `removed` writes them."""
        key = load_or_create_key(self.layout.private_state / "subject.key")
        ErasedList.known(self.layout).add([key.pseudonym(person)], key).keep(self.layout)

    def retrain(self) -> None:
        """As the steps after that: other artifacts, and locks that record them."""
        solved = load_head(self.layout.head)
        save_head(self.layout.head, replace(solved, bias=solved.bias + 1e-3))
        self.record()


def draw_stripes(folder: Path, rows: Sequence[Row]) -> None:
    """Images of both kinds: noise would all go to one cluster."""
    folder.mkdir()
    for row, image in zip(rows, striped(len(rows), seed=5)[1], strict=True):
        (folder / row.path).write_bytes(encoded(Image.fromarray(image[..., 0])))


def photos(n: int, seed: int = 0, side: int = 8) -> NDArray[np.uint8]:
    """(n, s, s) striped ones."""
    return striped(n, seed, side=side)[1][..., 0]


def version_of(model: LiveModel) -> str:
    """The version that answers now."""
    return model.predict(photos(1)).parts.model_version
