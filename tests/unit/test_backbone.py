"""The frozen backbone: a record's features are a function of its own image; params that timm refuses are refused."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import Lab, make_lab, pixels, refused, striped, tiny_params
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmeraser.core.errors import ParamsError, ProjectError
from lmeraser.learn.backbone import build, load_backbone, make_deterministic, pixel_statistics, save_backbone
from lmeraser.learn.pretraining import pretrain_backbone

IMAGES = striped(21, seed=5)[1]
FRAME = torch.linspace(-1, 1, 64).reshape(1, 8, 8)


@pytest.mark.parametrize("frame", [None, FRAME], ids=["plain", "framed"])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rng=st.randoms(use_true_random=False), keep=st.integers(1, 21))
def test_features_of_a_record_do_not_depend_on_its_neighbours(
    lab: Lab, frame: torch.Tensor | None, rng: random.Random, keep: int
) -> None:
    together = lab.backbone.features(IMAGES, 8, frame)
    chosen = rng.sample(range(21), keep)
    assert np.array_equal(lab.backbone.features(IMAGES[chosen], 8, frame), together[chosen])


def test_features_of_one_image_alone_are_those_among_others(lab: Lab) -> None:
    together = lab.backbone.features(IMAGES, 8)
    assert all(np.array_equal(lab.backbone.features(IMAGES[row : row + 1], 8)[0], together[row]) for row in range(21))
    assert len({row.tobytes() for row in together}) == 21  # the network does tell images apart


def test_no_images_have_no_features(lab: Lab) -> None:
    assert lab.backbone.features(IMAGES[:0], 8).shape == (0, lab.backbone.dim)


def test_frame_of_zeros_is_no_frame(lab: Lab) -> None:
    assert np.array_equal(lab.backbone.features(IMAGES, 8, torch.zeros(1, 8, 8)), lab.backbone.features(IMAGES, 8))


def test_no_weight_of_the_backbone_wants_a_gradient(lab: Lab) -> None:
    assert not lab.backbone.model.training
    assert not any(weight.requires_grad for weight in lab.backbone.model.parameters())


def test_folded_backbone_computes_what_the_trained_one_does(lab: Lab) -> None:
    ids, images, labels = striped(48, seed=0)
    model, mean, std = pretrain_backbone(ids, images, labels, lab.params)
    scaled = (torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 255 - mean[0]) / std[0]
    with torch.inference_mode():
        expected = model.eval()(scaled).numpy()
    assert np.allclose(lab.backbone.features(IMAGES, 8), expected, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="float32"),
        pytest.param({"pretrain.precision": "bfloat16", "image.size": 16}, id="bfloat16"),
        pytest.param({"pretrain.batch": 500, "pretrain.flip": True}, id="one batch, flipped"),
    ],
)
def test_pretraining_twice_gives_the_same_bytes(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    first = make_lab(tmp_path / "one", changes)
    torch.manual_seed(12345)
    torch.rand(3)
    other = make_lab(tmp_path / "other", changes)
    assert first.backbone_file.read_bytes() == other.backbone_file.read_bytes()


def test_precision_that_is_not_reproducible_is_refused(tmp_path: Path) -> None:
    # On AVX512-BF16 the weight gradient of a strided 3x3 convolution over a 1x1 map differs from run to run.
    refused(ParamsError, lambda: make_lab(tmp_path, {"pretrain.precision": "bfloat16"}))


def test_another_seed_gives_another_backbone(lab: Lab, tmp_path: Path) -> None:
    assert make_lab(tmp_path, {"seed": 1}).backbone_file.read_bytes() != lab.backbone_file.read_bytes()


def test_statistics_of_pixels_are_exact_and_free_of_order() -> None:
    images = pixels(1, 5 * 6, 7, 3).reshape(5, 6, 7, 3)
    mean, std = pixel_statistics(images)
    flat = images.reshape(-1, 3) / 255
    assert np.allclose(mean, flat.mean(0))
    assert np.allclose(std, flat.std(0))
    assert pixel_statistics(images[::-1]) == (mean, std)


def test_images_of_one_colour_have_a_standard_deviation_above_zero() -> None:
    assert pixel_statistics(np.full((2, 4, 4, 1), 7, dtype=np.uint8))[1][0] > 0


def built(changes: dict[str, Any]) -> torch.nn.Module:
    params = tiny_params(changes)
    return build(params.pretrain, params.image, 2)


@pytest.mark.parametrize(("name", "near"), [("resnet81", "resnet18"), ("resnt18", "resnet18"), ("vit_tiny_patch16", "vit_tiny")])
def test_unknown_model_is_refused_and_near_ones_are_named(name: str, near: str) -> None:
    message = refused(ParamsError, lambda: built({"pretrain.model": name}))
    assert "did you mean" in message
    assert near in message


def test_model_that_is_like_none_is_refused() -> None:
    assert "not a timm model" in refused(ParamsError, lambda: built({"pretrain.model": "zzzz\nzzzz" * 30}))


@pytest.mark.parametrize(
    "kwargs",
    [{"nope": 1}, {"num_classes": 4}, {"pretrained": True}, {"layers": 3}, {"global_pool": "nope"}, {"channels": "abcd"}],
)
def test_kwargs_that_timm_refuses_are_refused(kwargs: dict[str, Any]) -> None:
    assert "timm refuses pretrain.kwargs" in refused(ParamsError, lambda: built({"pretrain.kwargs": kwargs}))


def test_small_stem_of_another_network_is_refused() -> None:
    changes = {"pretrain.model": "vit_tiny_patch16_224", "pretrain.kwargs": {}}
    assert "set it to false" in refused(ParamsError, lambda: built(changes))


@pytest.mark.parametrize(
    "changes", [{"pretrain.small_stem": False}, {"image.channels": 3}, {"image.size": 12}, {"pretrain.kwargs": {}}]
)
def test_backbone_of_other_params_is_refused(lab: Lab, changes: dict[str, Any]) -> None:
    params = tiny_params(changes)
    assert "other params" in refused(ProjectError, lambda: load_backbone(lab.backbone_file, params))


def test_missing_backbone_is_refused(lab: Lab, tmp_path: Path) -> None:
    refused(ProjectError, lambda: load_backbone(tmp_path / "backbone.safetensors", lab.params))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_refused() -> None:
    assert "device is cuda" in refused(ParamsError, lambda: make_deterministic("cuda"))


def test_colour_network_reads_colour(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"image.channels": 3})
    images = striped(3, seed=1, channels=3)[1]
    assert np.isfinite(lab.backbone.features(images, 8)).all()
    assert not np.array_equal(lab.backbone.features(images, 8), lab.backbone.features(images[..., ::-1].copy(), 8))


def test_network_that_cannot_be_traced_or_folded_works_as_it_is(tmp_path: Path) -> None:
    params = tiny_params(
        {
            "pretrain.model": "vit_tiny_patch16_224",
            "pretrain.kwargs": {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 2},
            "pretrain.small_stem": False,
        }
    )
    model = build(params.pretrain, params.image, 0)
    save_backbone(tmp_path / "vit", model, [0.5], [0.5], params)
    backbone = load_backbone(tmp_path / "vit", params)
    together = backbone.features(IMAGES, 8)
    assert together.shape == (21, 12)
    assert np.array_equal(backbone.features(IMAGES[7:8], 8)[0], together[7])


@pytest.mark.parametrize("kwargs", [{"block": "x"}, {"act_layer": "nope"}, {"norm_layer": "nope"}])
def test_kwargs_that_timm_stumbles_over_are_refused(kwargs: dict[str, Any]) -> None:
    refused(ParamsError, lambda: built({"pretrain.kwargs": kwargs}))
