"""Which stages a pipeline file defines, and whether each is of a kind of which it is known what makes it stale."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from flows.dvc.identities import UndecidedError
from lmeraser.pipeline.files import ROOT_FILE, stage_names

FILE_KEYS = {"vars", "stages", "plots"}
STAGE_KEYS = {"desc", "cmd", "wdir", "deps", "params", "outs", "metrics", "plots"}
OUT_KEYS = {"cache", "desc", "persist"}
VARS = ["params.yaml"]


def lists_of(parts: Sequence[str], slots: Sequence[str]) -> dict[str, Sequence[str]]:
    """The lists of params.yaml that a `foreach` may name, as it names them."""
    return {"${parts}": parts, "${slots}": slots}


def names_of(stages: Mapping[str, Any], lists: Mapping[str, Sequence[str]]) -> list[str]:
    """Plain names of all stages of a pipeline file. Args: stages: as the file has them. Raises: KeyError for an unknown list."""
    names: list[str] = []
    for name, stage in stages.items():
        items = stage.get("foreach")
        names += [name] if items is None else stage_names(name, lists[items] if isinstance(items, str) else items)
    return names


def require_plain(definition: Mapping[str, Any], file: str) -> None:
    """Raise UndecidedError for a file with anything that may make a stage stale beside its command, deps, params and outs.

    Args: file: relative to the root, where all stages run.
    """
    if not definition.keys() <= FILE_KEYS or definition.get("vars", VARS) != VARS:
        raise UndecidedError
    for name, stage in definition["stages"].items():
        if not isinstance(name, str):  # DVC's parser takes `no` and `1e3` for other values
            raise UndecidedError
        inner = stage
        if "foreach" in stage:
            if stage.keys() != {"foreach", "do"} or not _are_words(stage["foreach"]):
                raise UndecidedError
            inner = stage["do"]
        _require_plain_stage(inner, file)


def _are_words(items: object) -> bool:
    return isinstance(items, str) or (isinstance(items, list) and all(isinstance(item, str) for item in items))


def _require_plain_stage(stage: Mapping[str, Any], file: str) -> None:
    home = "/".join(".." for _ in PurePosixPath(file).parent.parts) or "."
    if not stage.keys() <= STAGE_KEYS or stage.get("wdir", ".") != home or not stage.get("deps"):
        raise UndecidedError
    if not all(isinstance(dep, str) and "://" not in dep for dep in stage["deps"]):
        raise UndecidedError
    for out in (out for kind in ("outs", "metrics", "plots") for out in stage.get(kind) or ()):
        settings = {} if isinstance(out, str) else next(iter(out.values()))
        if not (isinstance(out, str) or len(out) == 1) or not settings.keys() <= OUT_KEYS:
            raise UndecidedError


def is_of_root(file: str) -> bool:
    """Whether a pipeline file, relative to the root, is where this project keeps one."""
    parts = PurePosixPath(file).parts
    return file == ROOT_FILE or (len(parts) == 3 and parts[0] == "tune" and parts[2] == ROOT_FILE)
