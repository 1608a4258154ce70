"""The frame's way into a network."""

import pytest
import torch
from builders import make_params
from torch import Tensor, nn

from lmeraser.learn.backbone import build
from lmeraser.learn.stem import _Framed, framed

SHAPE = (1, 16, 16)
FRAME = torch.linspace(-1, 1, 256).view(SHAPE)


class UsesItsInputTwice(nn.Module):
    """A shortcut around the first convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return (self.first(images) + images).flatten(1)


def network(model: str) -> nn.Module:
    kwargs = {"depth": 1, "embed_dim": 32, "num_heads": 2, "img_size": 16, "patch_size": 4} if model.startswith("vit") else {}
    changes = {"pretrain.model": model, "pretrain.small_stem": not kwargs}
    params = make_params(changes | ({"pretrain.kwargs": kwargs} if kwargs else {}))
    torch.manual_seed(0)
    return build(params.pretrain, params.image, 0).eval().requires_grad_(False)


def gradients(forward: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features, and the frame's gradient of a loss in which every feature has a weight of its own."""
    frame = FRAME.clone().requires_grad_()
    features = forward(images, frame)
    (features.float() * torch.linspace(-1, 1, features.numel()).view(features.shape)).sum().backward()
    assert frame.grad is not None
    return features, frame.grad


@pytest.mark.parametrize("model", ["resnet18", "vit_tiny_patch16_224"])
def test_the_short_way_gives_the_features_and_the_gradient_of_the_long_one(model: str) -> None:
    images = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1))
    original = network(model)
    features, gradient = gradients(lambda given, frame: original(given + frame), images)
    found, short = gradients(framed(original, SHAPE, torch.float32, "cpu"), images)
    torch.testing.assert_close(found, features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(short, gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("model", "short"), [(network("resnet18"), True), (UsesItsInputTwice().requires_grad_(False), False)])
def test_a_network_that_uses_its_input_twice_takes_the_long_way(model: nn.Module, short: bool) -> None:
    forward = framed(model, SHAPE, torch.float32, "cpu")
    held = [cell.cell_contents for cell in forward.__closure__ or ()]
    assert any(isinstance(module, _Framed) for module in held) is short
    images = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(2))
    _, gradient = gradients(lambda given, frame: model(given + frame), images)
    torch.testing.assert_close(gradients(forward, images)[1], gradient, rtol=1e-3, atol=1e-4)


def test_the_frozen_network_is_left_as_it_was() -> None:
    original = network("resnet18")
    framed(original, SHAPE, torch.bfloat16, "cpu")
    assert not any(isinstance(module, _Framed) for module in original.modules())
    assert {weight.dtype for weight in original.parameters()} == {torch.float32}
