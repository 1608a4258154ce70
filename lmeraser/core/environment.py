"""What bits belong to: the processor, the libraries and the thread count that made them.

Floating-point results are equal only within one environment, so its fingerprint stands beside every artifact.
"""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lmeraser.core.digest import canonical_json, sha256
from lmeraser.core.errors import ParamsError

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pillow", "pandas", "pyarrow")
THREADS = 1  # one thread inside a training step; clusters run in parallel by process


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"


def require_gpu() -> None:
    """Raise ParamsError if CUDA is asked for and absent."""
    import torch

    if not torch.cuda.is_available():
        raise ParamsError("params.yaml: device is cuda, but torch sees no GPU here; set it to cpu or run on a GPU worker")


@cache
def environment(device: str) -> dict[str, str]:
    """Everything that this project knows to change bits.

    Args:
        device: `cpu`, or `cuda` (then the GPU's model is named, which imports torch).
    """
    found = {
        "device": device,
        "machine": platform.machine(),
        "processor": _processor(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "threads": str(THREADS),
    }
    if device == "cuda":
        import torch

        require_gpu()
        found["gpu"] = torch.cuda.get_device_name()
    return found | {name: _version(name) for name in LIBRARIES}


def fingerprint(device: str) -> str:
    """The environment as 16 hex digits."""
    return sha256(canonical_json(environment(device)))[:16]
