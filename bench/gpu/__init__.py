"""The frame's tuning, embedding and erasing on one GPU: bits, speed, memory.

    python -m bench.gpu --out FOLDER           at most 8 minutes on one H100
    python -m bench.gpu --small --out FOLDER   the same sections on a CPU, a tiny network: seconds

It needs torch, timm, numpy, scipy, safetensors and this repository, so that it runs on a GPU machine that can install nothing.
"""

import sys
from importlib.util import find_spec
from types import ModuleType

# What the measured code takes from these modules it names in annotations alone; each needs a package that a GPU machine may lack.
TYPES_ALONE = {"pydantic": "lmeraser.core.params", "pyarrow": "lmeraser.data.records"}


def _type(name: str) -> type:
    """Any type's stand-in. What others ask of every module (`__file__`) is not there."""
    if name.startswith("_"):
        raise AttributeError(name)
    return object


def _stand_in(name: str) -> ModuleType:
    """A module in which every name is `object`."""
    module = ModuleType(name)
    module.__getattr__ = _type  # type: ignore[method-assign]
    return module


for _package, _module in TYPES_ALONE.items():
    if find_spec(_package) is None:
        sys.modules.setdefault(_module, _stand_in(_module))
