"""Several stages one after the other in one warm process: torch and Great Expectations are imported once.

    python -m stages.chain split embed@p03 cluster validate tune@c07 head evaluate

Names are DVC's. The bytes are those of `dvc repro`, stage by stage; recording them in dvc.lock is the caller's business.
"""

import importlib

from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from stages.entry import enter


def chain(layout: Layout, params: Params, names: list[str]) -> None:
    for name in names:
        stage, _, item = name.partition("@")
        act = getattr(importlib.import_module(f"stages.{stage}"), stage)
        act(layout, params, [item] if item else [])


if __name__ == "__main__":
    enter(chain)
