"""The params of each data set that the benches know, and of each backbone with weights from elsewhere."""

import os
from pathlib import Path

from bench.lab import ROOT
from bench.lab.changes import changed
from lmeraser.core.params import Params, load_params

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


def backbone_preset(name: str) -> Params:
    """Params of a backbone with given weights, whose file is looked for in `weights_folder`.

    Raises: SystemExit if nobody knows the backbone, or if its weights are not there.
    """
    if name not in BACKBONES:
        raise SystemExit(f"bench: unknown backbone {name[:40]!r}; expected one of {', '.join(BACKBONES)}")
    preset = load_params(ROOT / "params" / f"{name}.yaml")
    file = weights_folder() / Path(preset.pretrain.weights.file if preset.pretrain.weights else "none").name
    if not file.is_file():
        raise SystemExit(
            f"bench: {file.name} is not in {file.parent}; put it there, or set LMERASER_TEST_WEIGHTS to the folder that holds it"
        )
    return changed(preset, {"pretrain.weights.file": str(file)})
