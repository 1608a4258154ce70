"""Every common family of timm's networks can be the backbone: tuned for two steps with fresh weights, or refused in one line.

The smallest member that is quick to build; where that is large, a few layers of it.
"""

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import make_params, public_features, refused, striped
from torch import Tensor, nn

from lmeraser.clusters.skeleton import build_skeleton
from lmeraser.core.digest import sha256_of_file
from lmeraser.core.errors import ParamsError
from lmeraser.core.params import Params
from lmeraser.learn.backbone import (
    Backbone,
    build,
    load_backbone,
    make_deterministic,
    require_own_rows,
    require_size,
    save_backbone,
)
from lmeraser.learn.precision import PRECISIONS
from lmeraser.learn.stem import framed
from lmeraser.learn.tuning import tune_cluster
from lmeraser.learn.weights import take_weights

pytestmark = pytest.mark.slow

WEIGHTS_VARIABLE = "LMERASER_TEST_WEIGHTS"
WEIGHTS = os.environ.get(WEIGHTS_VARIABLE)
SMALL_VIT = {"depth": 2, "embed_dim": 32, "num_heads": 2}
ONE_A_STAGE = {"layers": [1, 1, 1, 1]}
SMALL_SWIN = {"depths": [1, 1], "embed_dim": 16, "num_heads": [2, 2], "window_size": 4, "img_size": 32}
# name: size, kwargs
FAMILIES: dict[str, tuple[int, dict[str, Any]]] = {
    "resnet18": (32, {}),
    "resnet50d": (32, ONE_A_STAGE),  # a stem of three convolutions
    "resnext50_32x4d": (32, ONE_A_STAGE),
    "seresnet18": (32, {}),
    "resnetv2_18": (32, {}),
    "resnetv2_18d": (32, {}),
    "nf_regnet_b0": (32, {}),  # weight-standardised convolutions
    "test_nfnet": (32, {}),
    "regnetx_002": (32, {}),
    "regnety_002": (32, {}),
    "repvgg_a0": (32, {}),  # reads its input twice
    "efficientnet_b0": (32, {}),
    "efficientnet_lite0": (32, {}),
    "tf_efficientnet_lite0": (32, {}),  # pads in its forward, by the input's size
    "tf_efficientnetv2_b0": (32, {}),
    "tf_mobilenetv3_small_minimal_100": (33, {}),
    "mobilenetv2_050": (32, {}),
    "mobilenetv3_small_050": (32, {}),  # gives more features than timm's num_features says
    "mobilenetv4_conv_small": (32, {}),
    "mnasnet_small": (32, {}),
    "ghostnet_100": (32, {}),
    "lcnet_050": (32, {}),
    "vgg11": (32, {"mlp_ratio": 0.01}),
    "vgg11_bn": (32, {"mlp_ratio": 0.01}),
    "densenet121": (32, {"block_config": [2, 2, 2, 2]}),
    "inception_next_atto": (32, {}),
    "convnext_atto": (32, {}),
    "convnextv2_atto": (32, {}),
    "convmixer_768_32": (32, {}),
    "poolformerv2_s12": (32, {}),
    "hgnetv2_b0": (32, {}),
    "vit_tiny_patch16_224": (32, {"img_size": 32, "depth": 2}),
    "vit_base_patch16_clip_224": (32, {"img_size": 32, **SMALL_VIT}),
    "vit_base_patch16_siglip_224": (32, {"img_size": 32, **SMALL_VIT}),
    "vit_tiny_r_s16_p8_224": (32, {"img_size": 32, "depth": 2}),  # a convolutional stem, weight-standardised
    "vit_small_patch14_dinov2": (28, {"img_size": 28, **SMALL_VIT}),
    "vit_small_patch14_reg4_dinov2": (28, {"img_size": 28, **SMALL_VIT}),
    "vit_small_patch16_dinov3": (32, {"img_size": 32, "depth": 2, "embed_dim": 64, "num_heads": 2}),
    "deit_tiny_distilled_patch16_224": (32, {"img_size": 32, "depth": 2}),
    "cait_xxs24_224": (32, {"img_size": 32, "depth": 2}),
    "beit_base_patch16_224": (32, {"img_size": 32, **SMALL_VIT}),
    "beitv2_base_patch16_224": (32, {"img_size": 32, **SMALL_VIT}),
    "eva_large_patch14_196": (28, {"img_size": 28, **SMALL_VIT}),
    "eva02_tiny_patch14_224": (28, {"img_size": 28, "depth": 2}),
    "swin_tiny_patch4_window7_224": (32, SMALL_SWIN),
    "swinv2_tiny_window8_256": (32, SMALL_SWIN),
    "mixer_s32_224": (32, {"img_size": 32}),
    "resmlp_12_224": (32, {"img_size": 32}),
    "pit_ti_224": (32, {"img_size": 32}),
    "pvt_v2_b0": (32, {}),
    "crossvit_tiny_240": (32, {}),  # resizes its input in its forward
    "xcit_nano_12_p8_224": (32, {"depth": 2}),
    "levit_128s": (32, {"img_size": 32}),
    "maxvit_rmlp_pico_rw_256": (32, {"img_size": 32}),
    "coatnet_pico_rw_224": (32, {"img_size": 32}),
    "efficientformerv2_s0": (32, {"img_size": 32}),
    "efficientvit_b0": (32, {}),
    "fastvit_t8": (32, {}),
    "mobilevit_xxs": (32, {}),
    "edgenext_xx_small": (32, {}),
    "tresnet_m": (32, ONE_A_STAGE),  # rearranges pixels before its first convolution
}


def params_of(
    model: str, size: int, kwargs: dict[str, Any], precision: str = "float32", more: dict[str, Any] | None = None
) -> Params:
    changes = {
        "pretrain.model": model,
        "pretrain.kwargs": kwargs,
        "pretrain.small_stem": False,
        "embed.batch": 4,
        "skeleton.leaves": 2,
    }
    image = {"image.size": size, "image.channels": 3}
    tune = {"tune.epochs": 1, "tune.batch": 4, "tune.min_batch": 4, "tune.frame_px": 4, "tune.precision": precision}
    return make_params(changes | image | tune | (more or {}))


def gradient(way: Any, images: Tensor) -> Tensor:
    """The frame's gradient of a loss that weighs each feature of each image by its own."""
    generator = torch.Generator().manual_seed(3)
    frame = torch.randn(images.shape[1:], generator=generator).requires_grad_()
    features = way(images, frame)
    (features.float() * torch.randn(features.shape, generator=generator)).sum().backward()
    assert frame.grad is not None
    return frame.grad


def plain(model: nn.Module, precision: torch.dtype) -> Any:
    same = copy.deepcopy(model).to(precision)
    return lambda images, frame: same((images + frame).to(precision).contiguous(memory_format=torch.channels_last))


def loaded(folder: Path, params: Params) -> tuple[nn.Module, Backbone]:
    """A network as pretraining leaves it, and what is read back from its file."""
    make_deterministic("cpu")
    torch.manual_seed(0)
    model = build(params.pretrain, params.image, 5)
    require_size(model, params)
    model.reset_classifier(0)  # type: ignore[operator]
    save_backbone(folder / "backbone", model.eval(), [0.5] * 3, [0.25] * 3, params)
    return model, load_backbone(folder / "backbone", params)


# In `make test` one of each way in which a stem, a normalisation or tokens differ.
COMMON = ["resnet18", "resnet50d", "resnetv2_18d", "test_nfnet", "repvgg_a0", "tf_efficientnet_lite0", "mobilenetv3_small_050"]
COMMON += ["densenet121", "convnext_atto", "vit_tiny_patch16_224", "vit_tiny_r_s16_p8_224", "vit_small_patch14_reg4_dinov2"]
COMMON += [
    "beit_base_patch16_224",
    "eva02_tiny_patch14_224",
    "swin_tiny_patch4_window7_224",
    "mixer_s32_224",
    "levit_128s",
    "tresnet_m",
]
SLOW = pytest.mark.campaign("four minutes on a slow processor")


@pytest.mark.parametrize("model", [pytest.param(name, marks=() if name in COMMON else SLOW) for name in FAMILIES])
def test_family_is_loaded_as_it_was_and_its_frame_gets_the_plain_gradient(model: str, tmp_path: Path) -> None:
    size, kwargs = FAMILIES[model]
    params = params_of(model, size, kwargs)
    trained, backbone = loaded(tmp_path, params)
    ids, images, labels = striped(8, seed=1, channels=3, side=size)
    features = backbone.features(images, 4)
    assert features.shape == (8, backbone.dim)
    assert np.isfinite(features).all()
    assert not any(module.training for module in backbone.model.modules())
    with torch.no_grad():
        expected = trained(backbone.normalise(images)).numpy()
    assert np.abs(features - expected).max() <= 1e-4 * np.abs(expected).max()
    for row in (0, 5, 7):
        assert np.array_equal(backbone.features(images[row : row + 1], 4)[0], features[row])
    skeleton = build_skeleton(public_features(features, np.arange(8) // 2), params)
    for precision, allowed in (("float32", 1e-3), ("bfloat16", 2e-2)):
        inputs, kind = backbone.normalise(images[:3]), PRECISIONS[precision]
        wanted = gradient(plain(backbone.model, kind), inputs)
        short = gradient(framed(backbone.model, (3, size, size), kind, "cpu"), inputs)
        assert wanted.any()
        assert (short - wanted).abs().max() <= allowed * wanted.abs().max(), precision
    tuned = tune_cluster(ids, images, labels, backbone, skeleton, params, "c00")
    assert all(np.isfinite(array).all() for array in (tuned.frame, tuned.weight, tuned.bias))
    assert tuned.weight.any()


@pytest.mark.skipif(WEIGHTS is None, reason=f"{WEIGHTS_VARIABLE} names no folder with MODEL.safetensors")
@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("tf_efficientnet_lite0", 64),
        pytest.param("vit_small_patch14_dinov2", 518, marks=pytest.mark.campaign("a minute of one core without bfloat16")),
    ],
)
def test_network_that_was_trained_elsewhere_is_tuned(model: str, size: int, tmp_path: Path) -> None:
    file = Path(str(WEIGHTS)) / f"{model}.safetensors"
    origin = {"pretrain.epochs": 0, "pretrain.weights": {"file": str(file), "sha256": sha256_of_file(file)}}
    params = params_of(model, size, {}, "auto", origin | {"embed.batch": 2, "tune.batch": 2, "tune.min_batch": 2})
    make_deterministic("cpu")
    taken = take_weights(params, tmp_path)
    network = taken.model
    save_backbone(tmp_path / "backbone", network, taken.mean, taken.std, params, taken.resampled)
    backbone = load_backbone(tmp_path / "backbone", params)
    ids, images, _ = striped(4, seed=1, channels=3, side=size)
    labels = ["one", "two", "one", "two"]
    features = backbone.features(images, 2)
    assert np.array_equal(backbone.features(images[3:], 2)[0], features[3])
    with torch.no_grad():
        expected = network(backbone.normalise(images)).numpy()
    assert np.abs(features - expected).max() <= 1e-4 * np.abs(expected).max()
    skeleton = build_skeleton(public_features(features, np.arange(4) // 2), params)
    tuned = tune_cluster(ids, images, labels, backbone, skeleton, params, "c00")
    assert all(np.isfinite(array).all() and array.any() for array in (tuned.frame, tuned.weight))


@pytest.mark.parametrize(
    ("model", "size", "kwargs", "reason"),
    [
        pytest.param("vit_tiny_patch16_224", 32, {}, "image.size 32", id="made for another size"),
        pytest.param("vgg11", 16, {"mlp_ratio": 0.01}, "image.size 16", id="an image too small for it"),
        pytest.param("resnet18", 32, {"global_pool": ""}, "expected one row of features", id="a map for an image"),
    ],
)
def test_network_that_will_not_do_is_refused_before_it_is_trained(model: str, size: int, kwargs: Any, reason: str) -> None:
    params = params_of(model, size, kwargs)
    make_deterministic("cpu")
    network = build(params.pretrain, params.image, 5)
    before, state = [value.clone() for value in network.state_dict().values()], torch.get_rng_state()
    assert reason in refused(ParamsError, lambda: require_size(network, params))
    assert all(torch.equal(value, other) for value, other in zip(before, network.state_dict().values(), strict=True))
    assert network.training
    assert torch.equal(state, torch.get_rng_state())


class ByNeighbours(nn.Module):
    """Takes its neighbours' mean away, as batch statistics do."""

    def forward(self, images: Tensor) -> Tensor:
        features = images.flatten(1)
        return features - features.mean(0)


class ByPlace(nn.Module):
    """The odd end of a tensor is computed in another way than its bulk."""

    def forward(self, images: Tensor) -> Tensor:
        features = images.flatten(1)
        return torch.cat([features[:-1] * 0.1, features[-1:] / 10])


@pytest.mark.parametrize("network", [ByNeighbours(), ByPlace()])
def test_network_whose_bits_depend_on_a_batch_is_refused_unless_each_image_comes_alone(network: nn.Module) -> None:
    params = params_of("resnet18", 32, {})
    assert "set embed.batch to 1" in refused(ParamsError, lambda: require_own_rows(network, params))
    require_own_rows(network, params.model_copy(update={"embed": params.embed.model_copy(update={"batch": 1})}))
