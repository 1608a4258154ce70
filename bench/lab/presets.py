"""The params of each data set that the benches know, and of each backbone with weights from elsewhere."""

import os
from pathlib import Path

from bench.lab import ROOT
from bench.lab.changes import changed
from lmeraser.core.params import HUB, Params, load_params

NAMES = ("signdigits", "mnist", "omniglot", "cifar10", "shift")
BACKBONES = ("efficientnet-lite0", "dinov2-small")
FILES = {"digits": "params.yaml"} | {name: f"params/{name}.yaml" for name in NAMES}


def preset_of(name: str) -> Params:
    """Params of `signdigits`, say, or of `signdigits-shift`. Raises: SystemExit if nobody knows the data set."""
    if name.endswith("-shift"):
        return changed(load_params(ROOT / FILES["shift"]), {"source.path": f"/path/to/{name}"})
    if name not in FILES:
        raise SystemExit(f"bench: unknown data set {name[:40]!r}; expected one of {', '.join(FILES)} or one with -shift")
    return load_params(ROOT / FILES[name])


def weights_folder() -> Path:
    """The folder of given weights: LMERASER_TEST_WEIGHTS, or weights/ beside the repository."""
    return Path(os.environ.get("LMERASER_TEST_WEIGHTS", ROOT.parent / "weights"))


def with_weights(params: Params) -> Params:
    """The params with their file of weights where this machine has it; others as they are.

    Raises: SystemExit if it is not there.
    """
    weights = params.pretrain.weights
    if not weights or weights.file == HUB:
        return params
    file = weights_folder() / Path(weights.file).name
    if not file.is_file():
        raise SystemExit(
            f"bench: {file.name} is not in the folder of weights; put it there, or set LMERASER_TEST_WEIGHTS to the folder that "
            "holds it"
        )
    return changed(params, {"pretrain.weights.file": str(file)})


def backbone_preset(name: str) -> Params:
    """Params of a backbone with given weights. Raises: SystemExit if nobody knows it, or if its weights are not there."""
    if name not in BACKBONES:
        raise SystemExit(f"bench: unknown backbone {name[:40]!r}; expected one of {', '.join(BACKBONES)}")
    return with_weights(load_params(ROOT / "params" / f"{name}.yaml"))
