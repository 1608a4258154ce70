"""dvc.lock as facts: what every stage made, and how two states differ. Reads files; knows no DVC.

With many slots there are several locks (`lmeraser/core/pipeline.py`). A path given here is that of the root's dvc.lock, and
stands for all of them: a state is whole only if each is.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lmeraser.core.errors import ProjectError
from lmeraser.core.pipeline import locks

DAMAGED = "dvc.lock is empty or damaged; run `git checkout dvc.lock && dvc repro` and retry"
Outs = dict[str, str]  # path of an out to its digest (MD5, as DVC names content)
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # hundreds of slots: seconds without libyaml


def damaged(name: str) -> str:
    """The line about a lock that is not whole; `name` is relative to the root."""
    return DAMAGED.replace("dvc.lock", name)


def outs_of(path: Path, name: str) -> dict[str, Outs]:
    """The outs of each stage of one lock. Raises: ProjectError if it is not whole."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError as error:
        raise ProjectError(f"{name} is missing: nothing was built yet; run `dvc repro` and retry") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProjectError(damaged(name)) from error
    try:
        stages: dict[str, Any] = raw["stages"]
        outs = {name: {str(out["path"]): str(out["md5"]) for out in stage.get("outs", [])} for name, stage in stages.items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise ProjectError(damaged(name)) from error
    if not outs:
        raise ProjectError(damaged(name))
    return outs


def outs_by_stage(path: Path) -> dict[str, Outs]:
    """The outs of each stage, by its plain name. Raises: ProjectError if a lock is missing or not whole."""
    root = path.parent
    every = [outs_of(lock, lock.relative_to(root).as_posix()) for lock in [path, *locks(root)[1:]]]
    return {stage: outs for one in every for stage, outs in one.items()}


def read_outs(path: Path) -> Outs:
    """Every out that is recorded. Raises: ProjectError if a lock is missing or not whole."""
    return {out: md5 for outs in outs_by_stage(path).values() for out, md5 in outs.items()}


@dataclass(frozen=True)
class Comparison:
    """Attributes: artifacts: how many were compared; differing: paths that differ or stand on one side alone, sorted."""

    artifacts: int
    differing: list[str]

    @property
    def equal(self) -> bool:
        """Comparing nothing proves nothing."""
        return self.artifacts > 0 and not self.differing


def compare(one: Outs, other: Outs) -> Comparison:
    paths = sorted(one.keys() | other.keys())
    return Comparison(len(paths), [path for path in paths if one.get(path) != other.get(path)])
