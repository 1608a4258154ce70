"""A backbone that was trained elsewhere, taken from a safetensors file that the params pin by its digest.

An artifact is a function of retained records, params and code: so the params hold the file's SHA-256, and other bytes are
refused. Nothing is downloaded here and nothing is unpickled (docs/decisions/0018).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from lmeraser.core.digest import sha256
from lmeraser.core.errors import ParamsError
from lmeraser.core.params import HUB, Params, Pretrain, Weights
from lmeraser.core.progress import say
from lmeraser.learn.backbone import build, require_size

HUB_FILE = "model.safetensors"
WHERE = "params.yaml: pretrain.weights"


def _from_hub(name: str) -> Path:
    config: Any = timm.models.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise ParamsError(f"{WHERE}: timm names no file on the hub for {name}; set file to a local safetensors file")
    repository, _, revision = config.hf_hub_id.partition("@")
    cached = try_to_load_from_cache(repository, config.hf_hub_filename or HUB_FILE, revision=revision or None)
    if not isinstance(cached, str):
        raise ParamsError(
            f"{WHERE}: the hub cache of this machine lacks {name}; fetch it where there is a network "
            f"(timm.create_model({name!r}, pretrained=True)), or set file to a local safetensors file"
        )
    return Path(cached)


def _read(path: Path, weights: Weights) -> dict[str, Tensor]:
    """The tensors of a file, checked: safetensors, the promised digest, whole, finite."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ParamsError(f"{WHERE}.file cannot be read ({error.strerror}); expected a safetensors file") from error
    if data[8:9] != b"{":  # https://github.com/huggingface/safetensors#format
        kind = (
            "pickled (or zipped), and opening it could run code"
            if data[:2] == b"PK" or data[:1] == b"\x80"
            else "of another kind"
        )
        raise ParamsError(f"{WHERE}.file is {kind}; expected safetensors: have its publisher convert it")
    digest = sha256(data)
    if weights.sha256 is None:
        raise ParamsError(f"{WHERE}.sha256 is null; the file's is {digest}: check it against its publisher's and write it there")
    if digest != weights.sha256:
        raise ParamsError(
            f"{WHERE}: sha256 mismatch: params.yaml says {weights.sha256[:12]}, the file has {digest[:12]}; get the file again"
        )
    try:
        tensors: dict[str, Tensor] = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ParamsError(f"{WHERE}.file is not a complete safetensors file; copy it again") from error
    for name, tensor in sorted(tensors.items()):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ParamsError(
                f"{WHERE}.file: tensor {name[:80]} holds values that are not finite (NaN or infinity); take another file"
            )
    return tensors


def _classifiers(model: nn.Module) -> list[str]:
    named = cast("Any", model).pretrained_cfg.get("classifier") or ()
    return [named] if isinstance(named, str) else list(named)


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"


def _translated(tensors: dict[str, Tensor], settings: Pretrain, channels: int, heads: list[str]) -> dict[str, Tensor]:
    """Weights by the names that the model has now: timm knows older names of its own models.

    timm takes what is missing in silence unless the number of classes is the file's, so it is told that number.
    """
    outer = [head.split(".")[0] for head in heads]
    classifiers = [tensors[f"{head}.weight"] for head in (*heads, *outer) if f"{head}.weight" in tensors]
    classes = len(classifiers[0]) if classifiers else 0
    overlay = {"state_dict": tensors, "num_classes": classes}
    model = timm.create_model(
        settings.model, pretrained=True, pretrained_cfg_overlay=overlay, in_chans=channels, num_classes=classes, **settings.kwargs
    )
    cast("Any", model).reset_classifier(0)
    translated: dict[str, Tensor] = model.state_dict()
    return translated


def _another(own: dict[str, Tensor], expected: dict[str, Tensor], name: str) -> ParamsError:
    missing, unknown = sorted(expected.keys() - own.keys()), sorted(own.keys() - expected.keys())
    example = f", such as {missing[0]}" if missing else ""
    return ParamsError(
        f"{WHERE}.file holds another architecture than {name}: it lacks {len(missing)} of {len(expected)} tensors{example}, "
        f"and has {len(unknown)} that the model does not know; check pretrain.model and pretrain.kwargs"
    )


def _misshapen(name: str, own: dict[str, Tensor], expected: dict[str, Tensor]) -> ParamsError:
    return ParamsError(
        f"{WHERE}.file: tensor {name} is {_shape(own[name])}, expected {_shape(expected[name])}; "
        "check pretrain.model, pretrain.kwargs and image.channels against the file"
    )


def _is_position(name: str) -> bool:
    """Whether a tensor says where a patch is: timm resamples those to another image size (bicubic)."""
    return name.rpartition(".")[2] in ("pos_embed", "relative_position_bias_table")


def _fit(model: nn.Module, tensors: dict[str, Tensor], params: Params) -> tuple[dict[str, Tensor], list[str]]:
    """The model's weights out of a file's tensors, and which position embeddings were resampled to this image size.

    Raises: ParamsError if they belong to another network.
    """
    heads, expected = _classifiers(model), model.state_dict()
    own = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[0] not in heads}
    common = sorted(expected.keys() & own.keys())
    # timm would resize some of them in silence (patches, say): only position embeddings may be, and that is told.
    resized = [name for name in common if own[name].shape != expected[name].shape]
    if resized and 2 * len(common) < len(expected):
        raise _another(own, expected, params.pretrain.model)
    if resized and not (own.keys() == expected.keys() and all(_is_position(name) for name in resized)):
        raise _misshapen(resized[0], own, expected)
    if own.keys() == expected.keys() and not resized:
        return own, []
    try:
        return _translated(tensors, params.pretrain, params.image.channels, heads), resized
    except Exception as error:  # whatever timm makes of foreign names, or of positions on no square
        unfit = _misshapen(resized[0], own, expected) if resized else _another(own, expected, params.pretrain.model)
        raise unfit from error


def _compare_images(params: Params, config: dict[str, Any]) -> None:
    """Tell where images come in another way than those that the weights were trained on: allowed, and mostly not meant."""
    image = params.image
    differing = [
        f"image.{key} is {configured}, timm's is {wanted}"
        for key, configured, wanted in (
            ("size", image.size, config["input_size"][-1]),
            ("interpolation", image.interpolation, config["interpolation"]),
            ("crop", image.crop, config["crop_pct"]),
        )
        if (not math.isclose(configured, wanted) if isinstance(configured, float) else configured != wanted)
    ]
    if differing:
        say(f"pretrain: warning: {'; '.join(differing)}")


@dataclass(frozen=True)
class Taken:
    """A backbone from a file. Attributes: mean, std: of pixels, as timm's config says; resampled: tensors that another image size
    asked for."""

    model: nn.Module
    mean: list[float]
    std: list[float]
    resampled: list[str]


def take_weights(params: Params, root: Path) -> Taken:
    """The model that params.pretrain.weights names, without its classifier.

    Args: root: where a relative path starts.
    Raises: ParamsError: no file, another digest, no safetensors, not finite, another network.
    """
    settings = params.pretrain
    weights = cast("Weights", settings.weights)
    model = build(settings, params.image, n_classes=0)
    path = _from_hub(settings.model) if weights.file == HUB else root / weights.file
    tensors = _read(path, weights)
    fitting, resampled = _fit(model, tensors, params)
    model.load_state_dict(fitting)
    require_size(model, params)
    config: dict[str, Any] = cast("Any", timm.data).resolve_model_data_config(model)
    mean, std = list(config["mean"]), list(config["std"])
    if len(mean) != params.image.channels:
        raise ParamsError(
            f"params.yaml: image.channels is {params.image.channels}, but {settings.model} was trained on {len(mean)}; set it so"
        )
    _compare_images(params, config)
    if resampled:
        say(f"pretrain: {', '.join(resampled)} resampled by timm to image.size {params.image.size}")
    return Taken(model.eval(), mean, std, resampled)
