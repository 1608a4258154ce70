"""Several stages one after the other in one warm process: torch and Great Expectations are imported once.

    python -m stages.runtime.chain split embed@p03 cluster validate tune@c07 head evaluate
    python -m stages.runtime.chain --before .lmeraser/ID.before split embed@p03 cluster validate tune@c07 head evaluate

Names are DVC's. The bytes are those of `dvc repro`, stage by stage; recording them in dvc.lock is the caller's business. With a
state before, stages are updated from it where they can be (`stages/update/`), and run whole where not.
"""

import importlib
import importlib.util
import time
from collections.abc import Callable
from typing import cast

from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import pace, say
from lmeraser.pipeline.before import Before, open_before
from lmeraser.pipeline.files import StageName
from stages.runtime.entry import Stage, enter

OPTION = "--before"
Update = Callable[[Before, Layout, Params, list[str]], bool]


def load(stage: str) -> Stage:
    """The function of a stage, by its name."""
    return cast("Stage", getattr(importlib.import_module(f"stages.{stage}"), stage))


def load_update(stage: str) -> Update | None:
    """How a stage is updated; None where it only runs whole."""
    name = f"stages.update.{stage}"
    return cast("Update", importlib.import_module(name).update) if importlib.util.find_spec(name) else None


def run(layout: Layout, params: Params, names: list[str], folder: str | None = None) -> dict[str, float]:
    """Run stages in order; returns the seconds of each. Args: folder: of the state before, relative to the project."""
    seconds: dict[str, float] = {}
    before = open_before(layout.root / folder, layout) if folder else None
    if folder and before is None:
        say("the state before is not that of this code and these params: stages run whole")
    stages = [StageName.parse(name) for name in names]
    kinds = {stage.kind for stage in stages}
    # Where they are alike, those that are done tell how long the others will take.
    paced = pace(stages, len(stages), f"{kinds.pop()} in this process", "stage") if len(kinds) == 1 else stages
    for name, stage in zip(names, paced, strict=True):
        start = time.monotonic()
        take(stage, layout, params, before)
        seconds[name] = seconds.get(name, 0.0) + time.monotonic() - start
    return seconds


def take(stage: StageName, layout: Layout, params: Params, before: Before | None) -> None:
    """Update a stage from the state before, or run it whole."""
    items = [stage.item] if stage.item else []
    update = load_update(stage.kind) if before else None
    if before and update:
        if update(before, layout, params, items):
            return
        say(f"{stage}: the state before does not answer for it; it runs whole")
    load(stage.kind)(layout, params, items)


def chain(layout: Layout, params: Params, arguments: list[str]) -> None:
    folder = arguments[1] if arguments[:1] == [OPTION] else None
    run(layout, params, arguments[2:] if folder else arguments, folder)


if __name__ == "__main__":
    enter(chain)
