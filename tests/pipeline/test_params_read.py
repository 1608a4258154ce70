"""A stage reads the params that dvc.yaml lists for it, key by key: a change of any other is none that DVC would have to see."""

import importlib
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from sandbox import REPOSITORY, Sandbox

from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.pipeline import recipe

pytestmark = pytest.mark.slow

ITEMS = {"embed": ["p00", "p01"], "tune": ["c00", "c01", "c02", "c03"]}
BACKBONE = ("pretrain.model", "pretrain.kwargs", "pretrain.small_stem", "pretrain.weights")
# Read without being listed, and why no stale artifact can come of it.
READ_ELSEWHERE = {
    "pretrain": ("embed.batch",),  # a check before the training; `skeleton`, which lists it, makes the same one
    "skeleton": BACKBONE,  # a backbone whose note says others is refused
    "embed": BACKBONE,
    "cluster": BACKBONE,
    "tune": (*BACKBONE, *recipe.PARAMS),  # the recipe holds them
    "evaluate": (*BACKBONE, "slots"),  # artifacts/cluster, a dependency, has a file of each slot
    "validate": ("slots",),
}


class Watched:
    """Params, or a section of them, that note what is read."""

    def __init__(self, values: BaseModel, place: str, read: set[str]) -> None:
        self._values, self._place, self._read = values, place, read

    def _named(self, key: str) -> str:
        return f"{self._place}.{key}" if self._place else key

    def __getattr__(self, key: str) -> Any:
        value = getattr(self._values, key)
        if key not in type(self._values).model_fields:
            raise AttributeError(f"{key}: not watched")
        if isinstance(value, BaseModel):
            return Watched(value, self._named(key), self._read)
        self._read.add(self._named(key))
        return value

    def model_dump(self, include: set[str] | dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        for key in include or type(self._values).model_fields:
            inner = include[key] if isinstance(include, dict) else True
            self._read |= {self._named(f"{key}.{name}") for name in inner} if isinstance(inner, set) else {self._named(key)}
        return self._values.model_dump(include=include, **options)


def listed(stage: str) -> list[str]:
    definition = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]
    keys: list[str] = definition.get("do", definition).get("params", [])
    return keys


def read_by(stage: str, project: Sandbox, params: Params) -> set[str]:
    """The keys that a stage reads when it is run in a built project."""
    read: set[str] = set()
    run = getattr(importlib.import_module(f"stages.{stage}"), stage)
    run(Layout(project.root), Watched(params, "", read), ITEMS.get(stage, []))
    return read


def covered(key: str, names: list[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def test_a_stage_reads_no_param_that_dvc_does_not_compare_for_it(project: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    params = load_params(project.root / "params.yaml")
    anchors = params.model_copy(update={"cluster": params.cluster.model_copy(update={"method": "anchors", "k": 2})})
    runs = [
        (stage, params) for stage in ("split", "pretrain", "skeleton", "recipe", "embed", "cluster", "validate", "tune", "head")
    ]
    discriminant = params.head.model_copy(update={"kind": "discriminant"})
    closed = params.model_copy(update={"head": discriminant, "tune": params.tune.model_copy(update={"kind": "closed"})})
    runs += [("evaluate", params), ("cluster", anchors), ("head", closed), ("skeleton", closed)]
    unread = {stage: set(listed(stage)) for stage, _ in runs}
    for stage, values in runs:
        read = read_by(stage, project, values)
        allowed = [*listed(stage), *READ_ELSEWHERE.get(stage, ())]
        assert sorted(key for key in read if not covered(key, allowed)) == [], stage
        unread[stage] -= {name for name in listed(stage) if any(covered(key, [name]) for key in read)}
    assert {stage: names for stage, names in unread.items() if names} == {}  # or DVC runs a stage for nothing
