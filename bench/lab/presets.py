"""The params of each data set that the benches know."""

from bench.lab import ROOT
from bench.lab.changes import changed
from lmeraser.core.params import Params, load_params

NAMES = ("signdigits", "mnist", "omniglot", "cifar10", "shift")
FILES = {"digits": "params.yaml"} | {name: f"params/{name}.yaml" for name in NAMES}


def preset_of(name: str) -> Params:
    """Params of `signdigits`, say, or of `signdigits-shift`. Raises: SystemExit if nobody knows the data set."""
    if name.endswith("-shift"):
        return changed(load_params(ROOT / FILES["shift"]), {"source.path": f"/path/to/{name}"})
    if name not in FILES:
        raise SystemExit(f"bench: unknown data set {name[:40]!r}; expected one of {', '.join(FILES)} or one with -shift")
    return load_params(ROOT / FILES[name])
