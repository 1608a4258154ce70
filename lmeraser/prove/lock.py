"""dvc.lock as facts: what every stage made, and how two states differ. Reads the file; knows no DVC."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lmeraser.core.errors import ProjectError

DAMAGED = "dvc.lock is empty or damaged; run `git checkout dvc.lock && dvc repro` and retry"
Outs = dict[str, str]  # path of an out to its digest (MD5, as DVC names content)


def outs_by_stage(path: Path) -> dict[str, Outs]:
    """The outs of each stage. Raises: ProjectError if there is no whole lock."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ProjectError("dvc.lock is missing: nothing was built yet; run `dvc repro` and retry") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProjectError(DAMAGED) from error
    try:
        stages: dict[str, Any] = raw["stages"]
        outs = {name: {str(out["path"]): str(out["md5"]) for out in stage.get("outs", [])} for name, stage in stages.items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise ProjectError(DAMAGED) from error
    if not outs:
        raise ProjectError(DAMAGED)
    return outs


def read_outs(path: Path) -> Outs:
    """Every out that dvc.lock records. Raises: ProjectError if there is no whole lock."""
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
