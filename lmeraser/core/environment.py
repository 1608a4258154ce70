"""What bits belong to: the instruction sets, the libraries and the settings that made them.

Floating-point results are equal only within one environment, so each artifact's note holds it whole, as a map of short texts:
what numpy and scipy compute with, here, and, where the network had a part, what torch computes with (`learn/environment.py`).
A processor's name is not in it: one name covers processors with and without AVX-512. What the libraries say that they use is,
and so are known answers, which show what no name can.

Two maps are of one environment if every key that both have agrees; a solve of sums needs no torch, so its map has no such key.
"""

import math
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lmeraser.core import determinism
from lmeraser.core.digest import canonical_json, sha256
from lmeraser.core.errors import ParamsError

Environment = dict[str, str]  # key to a printable line of 1 to 500 characters

LIBRARIES = (
    *("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn"),
    *("pillow", "pandas", "pyarrow", "matplotlib"),
)
THREADS = 1  # one thread inside a training step; clusters run in parallel by process
LONGEST = 500  # characters of a value: certificates take no more


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


def as_line(text: str) -> str:
    """A value as it may stand in a map: one printable line, or its digest where it is none."""
    return text if text.isprintable() and 0 < len(text) <= LONGEST else f"sha256 {sha256(text.encode(errors='replace'))[:16]}"


def _instructions() -> str:
    """The instruction sets that numpy's kernels choose from here: those it was built for and has not switched off."""
    from numpy._core import _multiarray_umath as core  # type: ignore[attr-defined]  # what numpy.show_runtime() reads

    features: dict[str, bool] = core.__cpu_features__
    switched_on = [name for name in core.__cpu_dispatch__ if features.get(name)]
    return " ".join([*core.__cpu_baseline__, "and", *(switched_on or ["no more"])])


def _blas() -> dict[str, str]:
    """Library, version, kernels and threads of the matrix products of numpy and of scipy."""
    import scipy.linalg  # noqa: F401  loads its own
    from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

    libraries = {f"{place}_blas": "unknown" for place in ("numpy", "scipy")}
    for pool in threadpool_info():
        for place in ("numpy", "scipy"):
            if pool["user_api"] == "blas" and f"/{place}.libs/" in pool["filepath"]:
                kernels = pool.get("architecture", "unknown")
                libraries[f"{place}_blas"] = (
                    f"{pool['internal_api']} {pool['version']}, kernels {kernels}, threads {pool['num_threads']}"
                )
    return libraries


def fraction(count: int, step: int) -> Any:
    """(count,) float64 in (-1, 1) that fill the mantissa: divisions, which every processor rounds alike."""
    import numpy as np

    return (np.arange(count, dtype=np.int64) * step % 2039 - 1019) / 1021


@cache
def known_answers() -> str:
    """Digest of a product, a solve, a rounding of cosines and sums: of what the skeleton, the sums and the head are made by."""
    import numpy as np
    from scipy.linalg import cho_factor, cho_solve

    left, right = fraction(90 * 70, 1327).reshape(90, 70), fraction(70 * 50, 769).reshape(70, 50)
    product = left @ right
    solved = cho_solve(cho_factor(left.T @ left + np.eye(70)), right)
    angles = fraction(4000, 577) * 40
    rounded = np.rint(np.cos(angles) * 1e9)
    single = left.astype(np.float32) @ right.astype(np.float32)
    few = [float(value) for value in angles[:40]]
    plain = np.array([[math.cos(angle), math.sin(angle), math.exp(angle / 40), math.log1p(abs(angle))] for angle in few])
    answers = [product, solved, rounded, np.cos(angles), np.exp(angles / 40), single, left.sum(1), single.sum(0), plain]
    return sha256(b"".join(np.ascontiguousarray(answer).tobytes() for answer in answers))[:16]


@cache
def _own() -> tuple[tuple[str, str], ...]:
    determinism.require()
    facts = {
        "machine": platform.machine(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "libc": " ".join(platform.libc_ver()).strip() or sys.platform,
        # Chooses among the C library's functions; nothing tells the effect, so the value counts.
        "libc_tunables": os.environ.get("GLIBC_TUNABLES") or "none",
        "openblas_l2_size": os.environ.get("OPENBLAS_L2_SIZE") or "its own",  # how products are divided; likewise
        "threads": str(THREADS),
        "numpy_instructions": _instructions(),
        "numpy_answers": known_answers(),
    }
    facts |= _blas() | {name: _version(name) for name in LIBRARIES}
    return tuple((key, as_line(value)) for key, value in sorted(facts.items()))


def environment() -> Environment:
    """What numpy and scipy compute with in this process; torch is not imported for it.

    Raises: StepFailedError where numpy was imported before its settings were made.
    """
    determinism.require()
    return dict(_own())


def fingerprint(made_in: Mapping[str, str]) -> str:
    """An environment as 16 hex digits."""
    return sha256(canonical_json(dict(made_in)))[:16]


def differing(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """The keys that both have and in which they differ, sorted. All are named where they share none: nothing agrees."""
    shared = first.keys() & second.keys()
    return sorted(key for key in (shared or first.keys() | second.keys()) if first.get(key) != second.get(key))


def grouped(made_in: Mapping[str, Mapping[str, str]]) -> list[tuple[Environment, list[str]]]:
    """Names that share an environment, the largest group first: its united map, and its names in the given order.

    Args: made_in: name of an artifact to its map. Those with the most keys come first, so the others find a place.
    """
    groups: list[tuple[Environment, list[str]]] = []
    for name in sorted(made_in, key=lambda artifact: -len(made_in[artifact])):
        for union, names in groups:
            if not differing(union, made_in[name]):
                union.update(made_in[name])
                names.append(name)
                break
        else:
            groups.append((dict(made_in[name]), [name]))
    order = list(made_in)
    return sorted(((union, sorted(names, key=order.index)) for union, names in groups), key=lambda group: -len(group[1]))


def in_words(keys: Iterable[str], first: Mapping[str, str], second: Mapping[str, str], most: int = 3) -> str:
    """`torch_instructions AVX2 / AVX512, ...`: what differs, for people."""
    named = [f"{key} {first.get(key, 'unknown')} / {second.get(key, 'unknown')}" for key in keys]
    return ", ".join(named[:most]) + (f" and {len(named) - most} more" if len(named) > most else "")
