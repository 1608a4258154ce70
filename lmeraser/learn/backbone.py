"""The frozen backbone: any timm model as a feature extractor whose rows do not depend on their neighbours."""

import copy
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from lmeraser.core import determinism
from lmeraser.core.digest import sha256_of_file
from lmeraser.core.environment import THREADS, require_gpu
from lmeraser.core.errors import ParamsError, ProjectError
from lmeraser.core.params import ImageParams, Params, Pretrain
from lmeraser.data.tensors import read_tensors, write_tensors
from lmeraser.learn.depths import Depths, with_depths
from lmeraser.learn.environment import network_environment, switch_kernels
from lmeraser.learn.memory import batch_that_fits, is_full, keep_freed_memory
from lmeraser.learn.precision import pretraining_precision


def make_deterministic(device: str) -> None:
    """One thread, deterministic kernels, freed memory kept, the known answers asked; call before the first tensor.

    Raises: StepFailedError if torch was imported under other settings; ParamsError if CUDA is asked for and absent.
    """
    determinism.require()
    keep_freed_memory()
    torch.set_num_threads(THREADS)
    switch_kernels()
    # Filling memory that every kernel overwrites is for finding bugs; it was up to a sixth of a training step.
    cast("Any", torch.utils).deterministic.fill_uninitialized_memory = False
    if device == "cuda":
        require_gpu()
    network_environment(device)


def _is_known(name: str) -> bool:
    """Whether timm has the model, and, if the name has one, the tag of its weights."""
    return bool(timm.is_model(name)) and ("." not in name or name in timm.list_pretrained())


def build(pretrain: Pretrain, image: ImageParams, n_classes: int) -> nn.Module:
    """A timm model with fresh weights.

    Raises: ParamsError naming the nearest models if timm does not know the name, or if it refuses the kwargs.
    """
    if not _is_known(pretrain.model):
        near = difflib.get_close_matches(pretrain.model, [*timm.list_models(), *timm.list_pretrained()], 3)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise ParamsError(f"params.yaml: pretrain.model {pretrain.model[:60]!r} is not a timm model; {hint}")
    try:
        model = timm.create_model(
            pretrain.model, pretrained=False, in_chans=image.channels, num_classes=n_classes, **pretrain.kwargs
        )
    except Exception as error:  # whatever a model's own code makes of strange kwargs
        reason = (str(error).splitlines() or [""])[0]
        raise ParamsError(f"params.yaml: timm refuses pretrain.kwargs for {pretrain.model}: {reason}") from error
    if pretrain.small_stem:
        _shrink_stem(model, pretrain.model)
    return model


def _shrink_stem(model: nn.Module, name: str) -> None:
    """A 3x3 stride-2 first convolution and no max-pool: an ImageNet stem throws small images away."""
    first = getattr(model, "conv1", None)
    if not isinstance(first, nn.Conv2d) or not hasattr(model, "maxpool"):
        raise ParamsError(f"params.yaml: pretrain.small_stem fits ResNets, {name} has another stem; set it to false")
    model.conv1 = nn.Conv2d(first.in_channels, first.out_channels, 3, stride=2, padding=1, bias=False)
    model.maxpool = nn.Identity()


def require_size(model: nn.Module, params: Params) -> None:
    """Raise ParamsError unless a network gives each image of the params' size a row of features that are numbers.

    Before any training: transformers are made for one size, some networks give maps or several answers, and some are another
    network once their classifier is dropped. The model stays as it is, and nobody's random numbers move.
    """
    settings, size = params.pretrain, params.image.size
    trial = _trial(params.image, 2).to(params.device)
    with batch_that_fits("embed.batch", len(trial)):
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                bare = copy.deepcopy(model).to(params.device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
                cast("Any", bare).reset_classifier(0)
                features = bare(trial)
                with torch.device("meta"):
                    again = build(settings, params.image, 0).state_dict()
        except Exception as error:  # whatever a model's own code makes of a strange size
            if is_full(error):
                raise
            reason = " ".join((str(error).splitlines() or [type(error).__name__])[0].split())
            raise ParamsError(
                f"params.yaml: {settings.model} does not take images of image.size {size} ({reason[:100]}); "
                "change it, or pretrain.kwargs (img_size)"
            ) from error
    if {name: value.shape for name, value in bare.state_dict().items()} != {name: value.shape for name, value in again.items()}:
        raise ParamsError(
            f"params.yaml: {settings.model} has other layers once its classifier is removed; take another pretrain.model"
        )
    _require_rows(features, settings.model)
    require_own_rows(_folded(bare, trial, features), params)


def require_own_rows(model: nn.Module, params: Params) -> None:
    """Raise ParamsError if an image's bits depend on its neighbours or on its place in a batch.

    They do where a kernel computes the odd end of a tensor in another way than its bulk: seen with widths that are no multiple of
    the processor's. `pretrain` asks before it trains; `skeleton` asks again, which DVC runs anew where embed.batch moved.

    Args: model: (n, c, s, s) normalised float32 to (n, d), on the params' device.
    """
    batch = params.embed.batch
    images = _trial(params.image, batch).to(params.device)
    with torch.inference_mode(), batch_that_fits("embed.batch", batch):
        alone = model(images[-1:].expand_as(images).contiguous(memory_format=torch.channels_last))
        among = model(images)
    if not torch.equal(alone, alone[-1:].expand_as(alone)) or not torch.equal(alone[-1], among[-1]):
        raise ParamsError(
            f"params.yaml: {params.pretrain.model} computes different bits for an image depending on its place in a batch of "
            f"{batch}; set embed.batch to 1 (slower), or take another pretrain.model or image.size"
        )


def _trial(image: ImageParams, count: int) -> Tensor:
    """(count, c, s, s) float32 random normal images, always the same."""
    shape = (count, image.channels, image.size, image.size)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)


def _require_rows(features: Any, name: str) -> None:
    """Raise ParamsError unless the features of two images are (2, d) float numbers."""
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 2:
        shape = " x ".join(map(str, features.shape[1:])) if isinstance(features, Tensor) else "several tensors"
        raise ParamsError(
            f"params.yaml: {name} turns an image into {shape}, expected one row of features; take another pretrain.model, or "
            "set global_pool in pretrain.kwargs"
        )
    if not bool(torch.isfinite(features).all()):
        raise ParamsError(
            f"params.yaml: {name} makes features that are not finite (NaN or infinity); take another pretrain.model"
        )


@dataclass(frozen=True)
class Backbone:
    """A frozen feature extractor.

    Attributes:
        model: (n, c, s, s) normalised float32 to (n, dim); evaluation mode, no parameter wants a gradient.
        mean, std: (c,) of the public training pixels, in [0, 1].
        dim: features in a row; widths: how many of them each depth has, the network's own row last.
    """

    model: nn.Module
    mean: Tensor
    std: Tensor
    image: ImageParams
    device: str
    dim: int
    widths: tuple[int, ...] = ()

    def normalise(self, pixels: NDArray[np.uint8]) -> Tensor:
        """(n, s, s, c) uint8 to (n, c, s, s) float32, channels last."""
        scaled = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        shape = (1, -1, 1, 1)
        return scaled.sub_(self.mean.view(shape)).div_(self.std.view(shape)).contiguous(memory_format=torch.channels_last)

    def features(self, pixels: NDArray[np.uint8], batch: int, frame: Tensor | None = None) -> NDArray[np.float32]:
        """Features of images, each a function of its own image and the frame alone.

        Every forward pass has the same shape (the last batch is padded): kernels choose their algorithm by shape, so a
        record's bits would otherwise depend on how many neighbours it has.

        Args:
            pixels: (n, s, s, c) uint8.
            frame: (c, s, s) added to the normalised image, or none.
        Returns: (n, dim) float32.
        """
        if not len(pixels):
            return np.zeros((0, self.dim), dtype=np.float32)
        rows = []
        with torch.inference_mode(), batch_that_fits("embed.batch", batch):
            for start in range(0, len(pixels), batch):
                chunk = pixels[start : start + batch]
                padded = np.zeros((batch, *chunk.shape[1:]), dtype=np.uint8)
                padded[: len(chunk)] = chunk
                inputs = self.normalise(padded)
                if frame is not None:
                    inputs = inputs + frame
                rows.append(self.model(inputs)[: len(chunk)].float().cpu().numpy())
        return np.concatenate(rows)


def pixel_statistics(images: Iterable[NDArray[np.uint8]]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel in [0, 1], from exact integer sums.

    Args: images: (s, s, c) uint8 each.
    """
    count, total, squares = 0, np.zeros(1, dtype=object), np.zeros(1, dtype=object)
    for image in images:
        flat = image.reshape(-1, image.shape[-1]).astype(np.int64)
        count += len(flat)
        total = total + flat.sum(0).astype(object)
        squares = squares + (flat**2).sum(0).astype(object)
    mean = [float(value) / count for value in total]
    std = [max(float(square) / count - m * m, 1e-4) ** 0.5 for square, m in zip(squares, mean, strict=True)]
    return [m / 255 for m in mean], [s / 255 for s in std]


def _made_for(params: Params) -> dict[str, Any]:
    """The params that a backbone's file belongs to, beside those of its training."""
    made = params.pretrain.model_dump(include={"model", "kwargs", "small_stem"})
    if params.pretrain.weights:
        made["weights"] = params.pretrain.weights.sha256
    return {"pretrain": made, "image": params.image.model_dump(include={"size", "channels"})}


def save_backbone(
    path: Path, model: nn.Module, mean: Sequence[float], std: Sequence[float], params: Params, resampled: Sequence[str] = ()
) -> None:
    """Keep the weights (float32) with all that is needed to build the model again.

    Args: resampled: position embeddings that were made for another image size.
    """
    weights = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    settings = params.pretrain
    precision = None if settings.weights else pretraining_precision(model, settings, params.image, params.device)
    note: dict[str, Any] = _made_for(params) | {
        "precision": precision,
        "mean": list(mean),
        "std": list(std),
        "resampled": list(resampled),
        "environment": network_environment(params.device),
    }
    write_tensors(path, weights, note)


_LOADED: dict[str, Backbone] = {}  # one, by what it is made of: a warm process loads it once


def load_backbone(path: Path, params: Params) -> Backbone:
    """Build the model, load the weights, drop the classifier, fold batch norms into convolutions and freeze.

    Nobody may change what is returned: the next caller of a warm process gets the same object.
    Raises: ProjectError if the weights do not fit the params; ParamsError if the network gives no rows of numbers.
    """
    digest = sha256_of_file(path) if path.is_file() else "absent"
    made_of = f"{digest} {params.pretrain} {params.features} {params.image} {params.device}"
    if made_of not in _LOADED:
        loaded = _load_backbone(path, params)
        _LOADED.clear()
        _LOADED[made_of] = loaded
    return _LOADED[made_of]


def _load_backbone(path: Path, params: Params) -> Backbone:
    weights, note = read_tensors(path)
    expected = _made_for(params)
    if {key: note[key] for key in expected} != expected:
        raise ProjectError(f"{path.name} was trained with other params; run `dvc repro` and retry")
    model = build(params.pretrain, params.image, n_classes=0)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    model.eval().requires_grad_(False)
    with torch.no_grad():
        trial = _trial(params.image, 2)
        model = with_depths(model, params.features, trial, params.pretrain.model).eval().requires_grad_(False)
        features = model(trial)
        _require_rows(features, params.pretrain.model)
        widths = model.widths if isinstance(model, Depths) else (features.shape[1],)
        if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
            model = _folded(model, trial, features)
    model = model.to(params.device).to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(note[key], dtype=torch.float32, device=params.device) for key in ("mean", "std"))
    return Backbone(model, mean, std, params.image, params.device, features.shape[1], widths)


def _folded(model: nn.Module, trial: Tensor, features: Tensor) -> nn.Module:
    """Batch norms folded into the convolutions before them: fewer passes over memory, no other function.

    A model that cannot be traced stays as it is, and so does one whose trace is another function: tracing takes one way
    through code that asks for types and shapes.

    Args: trial: (2, c, s, s) images; features: (2, d), the model's own of them.
    """
    try:
        fused = fuse(model).eval()
        traced = fused(trial)
    except Exception as error:  # whatever tracing makes of a model's own code
        if is_full(error):  # whether it is folded must not depend on free memory
            raise
        return model
    reach = float(features.abs().max())
    same_shape = isinstance(traced, Tensor) and traced.shape == features.shape
    return fused if same_shape and float((traced - features).abs().max()) <= 1e-4 * reach else model
