"""Several stages one after the other in one warm process: torch and Great Expectations are imported once.

    python -m stages.runtime.chain split embed@p03 cluster validate tune@c07 head evaluate

Names are DVC's. The bytes are those of `dvc repro`, stage by stage; recording them in dvc.lock is the caller's business.
"""

import importlib
import time
from typing import cast

from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.pipeline.files import StageName
from stages.runtime.entry import Stage, enter


def load(stage: str) -> Stage:
    """The function of a stage, by its name."""
    return cast("Stage", getattr(importlib.import_module(f"stages.{stage}"), stage))


def run(layout: Layout, params: Params, names: list[str]) -> dict[str, float]:
    """Run stages in order; returns the seconds of each."""
    seconds: dict[str, float] = {}
    for name in names:
        stage = StageName.parse(name)
        start = time.monotonic()
        load(stage.kind)(layout, params, [stage.item] if stage.item else [])
        seconds[name] = seconds.get(name, 0.0) + time.monotonic() - start
    return seconds


def chain(layout: Layout, params: Params, names: list[str]) -> None:
    run(layout, params, names)


if __name__ == "__main__":
    enter(chain)
