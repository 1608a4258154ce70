"""dvc.lock as facts: what every stage made, and how two states differ. Reads the file; knows no DVC."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lmeraser.core.errors import ProjectError

Outs = dict[str, str]  # path of an out to its digest (MD5, as DVC names content)


def _entries(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ProjectError("dvc.lock is missing: nothing was built yet; run `dvc repro` and retry") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProjectError("dvc.lock is damaged; run `git checkout dvc.lock && dvc repro` and retry") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("stages"), dict):
        raise ProjectError("dvc.lock is empty or damaged; run `git checkout dvc.lock && dvc repro` and retry")
    stages: dict[str, Any] = raw["stages"]
    return stages


def read_outs(path: Path) -> Outs:
    """Every out that dvc.lock records. Raises: ProjectError if there is no whole lock."""
    return {out["path"]: out["md5"] for stage in _entries(path).values() for out in stage.get("outs", [])}


def outs_by_stage(path: Path) -> dict[str, Outs]:
    return {name: {out["path"]: out["md5"] for out in stage.get("outs", [])} for name, stage in _entries(path).items()}


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
