"""What the sections share: settings, networks, images, digests and time."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import nn

from bench.gpu.flops import Shape
from lmeraser.clusters.skeleton import PublicFeatures, Skeleton, build_skeleton
from lmeraser.core.digest import sha256
from lmeraser.learn.backbone import Backbone, build
from lmeraser.learn.cluster_model import ClusterModel
from lmeraser.learn.tuning import tune_cluster

PRESET = Path(__file__).resolve().parents[2] / "params" / "paper" / "cifar10-vit.yaml"
# LayerScale starts at 1e-5 in timm, where no trained network has it: bfloat16 would round every layer but the first away.
MODELS: dict[str, dict[str, Any]] = {
    "vit_small_patch14_dinov2": {"img_size": 224, "init_values": 1.0},
    "vit_base_patch16_224": {},
}
SMALL: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 64, "num_heads": 2, "init_values": 1.0}
}
# By section of params.yaml: what a CPU has the time for.
SMALL_SETTINGS: dict[str, dict[str, Any]] = {
    "image": {"size": 32},
    "tune": {"frame_px": 4, "batch": 8, "min_batch": 8, "epochs": 1, "shift_px": 2},
    "embed": {"batch": 8},
    "skeleton": {"leaves": 4},
    "projection": {"dim": 64},
}
CLASSES = 10
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Sizes:
    """How much is done. records: of the cluster tuned twice; timed: of the one that is timed; erased: of the sums."""

    records: int = 192
    epochs: int = 2
    timed: int = 768
    erased: int = 400
    square: int = 8192
    repeats: int = 5
    seconds: float = 1.0  # that a rate is measured for


SMALL_SIZES = Sizes(records=16, epochs=1, timed=16, erased=37, square=256, repeats=2, seconds=0.05)


def settings(name: str, device: str, small: bool, **tune: Any) -> Any:
    """The paper's preset for a ViT at 224 px, over another timm model; reads like `Params` but needs no pydantic.

    Args: tune: values of params.tune in its place.
    """
    raw = yaml.safe_load(PRESET.read_text(encoding="utf-8"))
    for section, changes in SMALL_SETTINGS.items() if small else ():
        raw[section] |= changes
    raw["device"] = device
    raw["pretrain"] |= {"model": name, "kwargs": (SMALL if small else MODELS)[name]}
    raw["tune"] |= tune
    return SimpleNamespace(**{key: SimpleNamespace(**part) if isinstance(part, dict) else part for key, part in raw.items()})


def draw_weights(model: nn.Module) -> None:
    """Random weights under which every layer counts: each linear layer keeps its input's variance, so attention is uneven."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                spread = module.weight[0].numel() ** -0.5
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * spread)


def synthetic(count: int, size: int, seed: int = 0) -> tuple[list[str], Pixels, list[str]]:
    """Record ids, (n, s, s, 3) uint8 and labels. Bits and speed do not depend on what the images show."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return [f"{seed:08x}{row:024x}" for row in range(count)], pixels, [str(row % CLASSES) for row in range(count)]


@dataclass(frozen=True)
class Ground:
    """A frozen network with random weights and what is tuned over it."""

    name: str
    device: str
    small: bool
    sizes: Sizes
    params: Any  # as `Params`
    backbone: Backbone
    skeleton: Skeleton
    shape: Shape

    @classmethod
    def of(cls, name: str, device: str, small: bool) -> "Ground":
        """The network as `load_backbone` makes it, but for the weights' file."""
        params = settings(name, device, small)
        torch.manual_seed(0)  # of what `draw_weights` leaves: class token and positions
        model = build(params.pretrain, params.image, n_classes=0)
        draw_weights(model)
        shape = Shape.of(model)
        model.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        mean, std = (torch.full((params.image.channels,), value, device=device) for value in (0.5, 0.25))
        backbone = Backbone(model, mean, std, params.image, device, shape.width, (shape.width,))
        ids, pixels, labels = synthetic(max(params.embed.batch, 2 * params.skeleton.leaves), params.image.size, seed=1)
        features = backbone.features(pixels, params.embed.batch)
        public = PublicFeatures(features, (features.shape[1],), np.arange(len(pixels)), labels, ids)
        skeleton = build_skeleton(public, params)
        return cls(name, device, small, SMALL_SIZES if small else Sizes(), params, backbone, skeleton, shape)

    def tuned(self, precision: str, records: int, epochs: int) -> ClusterModel:
        """A cluster of synthetic records, tuned by the product."""
        params = settings(self.name, self.device, self.small, precision=precision, epochs=epochs)
        ids, pixels, labels = synthetic(records, params.image.size)
        return tune_cluster(ids, pixels, labels, self.backbone, self.skeleton, cast("Any", params), "bench")


def digest(*arrays: NDArray[Any]) -> str:
    """16 hex digits of the arrays' bytes."""
    return sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays))[:16]


def digest_of(model: ClusterModel) -> str:
    return digest(model.frame, model.weight, model.bias)


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(action: Callable[[], Any], device: str, limit_s: float, rounds: int = 3) -> float:
    """Wall seconds of one call: the median of some rounds of calls without a wait in between, after two that warm up."""
    for _ in range(2):
        action()
    wait(device)
    start = time.perf_counter()
    action()
    wait(device)
    calls = max(1, int(limit_s / rounds / max(time.perf_counter() - start, 1e-6)))
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            action()
        wait(device)
        spent.append((time.perf_counter() - start) / calls)
    return statistics.median(spent)


@contextmanager
def torchs_defaults() -> Iterator[None]:
    """Torch as it comes: no deterministic algorithms, TF32 in convolutions. What a plain loop runs under."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.allow_tf32 = False


@contextmanager
def peak_of(device: str, into: dict[str, Any]) -> Iterator[None]:
    """Put the most memory that torch's tensors took on the GPU meanwhile, and that torch reserved, into a section. GiB."""
    if device != "cuda":
        yield
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    yield
    into["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    into["peak_reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30
