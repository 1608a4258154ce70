"""The frame's way into a network."""

from collections.abc import Callable

import pytest
import torch
from builders import make_params, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.std_conv import StdConv2d, StdConv2dSame
from torch import Tensor, nn

from lmeraser.core.errors import ParamsError
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
        features: Tensor = self.first(images) + images
        return features.flatten(1)


def network(model: str) -> nn.Module:
    kwargs = {"depth": 1, "embed_dim": 32, "num_heads": 2, "img_size": 16, "patch_size": 4} if model.startswith("vit") else {}
    changes = {"pretrain.model": model, "pretrain.small_stem": not kwargs}
    params = make_params(changes | ({"pretrain.kwargs": kwargs} if kwargs else {}))
    torch.manual_seed(0)
    return build(params.pretrain, params.image, 0).eval().requires_grad_(False)


def gradients(forward: Callable[[Tensor, Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Features, and the frame's gradient of a loss in which every feature has a weight of its own."""
    frame = FRAME.clone().requires_grad_()
    features = forward(images, frame)
    (features.float() * torch.linspace(-1, 1, features.numel()).view(features.shape)).sum().backward()
    assert frame.grad is not None
    return features, frame.grad


def takes_the_short_way(forward: Callable[..., Tensor]) -> bool:
    closed_over = [cell.cell_contents for cell in forward.__closure__ or ()]
    return any(isinstance(module, _Framed) for module in closed_over)


@pytest.mark.parametrize("model", ["resnet18", "vit_tiny_patch16_224"])
def test_the_short_way_gives_the_features_and_the_gradient_of_the_long_one(model: str) -> None:
    images = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1))
    original = network(model)
    features, gradient = gradients(lambda given, frame: original(given + frame), images)
    short_features, short_gradient = gradients(framed(original, SHAPE, torch.float32, "cpu"), images)
    torch.testing.assert_close(short_features, features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(short_gradient, gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("model", "short"), [(network("resnet18"), True), (UsesItsInputTwice().requires_grad_(False), False)])
def test_a_network_that_uses_its_input_twice_takes_the_long_way(model: nn.Module, short: bool) -> None:
    forward = framed(model, SHAPE, torch.float32, "cpu")
    assert takes_the_short_way(forward) is short
    images = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(2))
    _, gradient = gradients(lambda given, frame: model(given + frame), images)
    torch.testing.assert_close(gradients(forward, images)[1], gradient, rtol=1e-3, atol=1e-4)


def test_the_frozen_network_is_left_as_it_was() -> None:
    original = network("resnet18")
    framed(original, SHAPE, torch.bfloat16, "cpu")
    assert not any(isinstance(module, _Framed) for module in original.modules())
    assert {weight.dtype for weight in original.parameters()} == {torch.float32}


class Stem(nn.Module):
    """A first convolution, and what is done before and after it."""

    def __init__(self, first: nn.Conv2d, before: Callable[[Tensor], Tensor] = lambda images: images) -> None:
        super().__init__()
        self.first, self.before = first, before

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.first(self.before(images))).flatten(1)


class WithHook(nn.Conv2d):
    """A plain convolution whose input a hook pads."""

    def __init__(self) -> None:
        super().__init__(1, 3, 3)
        self.register_forward_pre_hook(lambda _, given: (nn.functional.pad(given[0], (2, 1, 2, 1)),))


def first_convolutions() -> st.SearchStrategy[nn.Conv2d]:
    """Convolutions of every kind that stands first in a network of timm's, and others."""

    def make(kind: type[nn.Conv2d], kernel: int, stride: int, dilation: int, padding: int, bias: bool, mode: str) -> nn.Conv2d:
        torch.manual_seed(kernel)
        more = {"padding_mode": mode} if kind is nn.Conv2d else {}
        return kind(1, 3, kernel, stride=stride, dilation=dilation, padding=padding, bias=bias, **more)  # type: ignore[arg-type]

    kinds = st.sampled_from([nn.Conv2d, nn.Conv2d, Conv2dSame, StdConv2d, StdConv2dSame])
    numbers = [st.integers(2, 5), st.integers(1, 4), st.integers(1, 2), st.integers(0, 2)]
    made = st.builds(make, kinds, *numbers, st.booleans(), st.sampled_from(["zeros", "reflect"]))
    return made | st.builds(WithHook)


@settings(max_examples=60, deadline=None)
@given(first=first_convolutions(), precision=st.sampled_from([torch.float32, torch.bfloat16]))
def test_every_stem_gives_the_frame_the_gradient_that_autograd_gives(first: nn.Conv2d, precision: torch.dtype) -> None:
    model = Stem(first).requires_grad_(False)
    images = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))
    same = Stem(first).requires_grad_(False).to(precision)
    features, wanted = gradients(lambda given, frame: same((given + frame).to(precision)), images)
    short_features, gradient = gradients(framed(model, SHAPE, precision, "cpu"), images)
    allowed = 1e-3 if precision == torch.float32 else 2e-2
    torch.testing.assert_close(short_features.float(), features.float(), rtol=allowed, atol=allowed)
    assert (gradient - wanted).abs().max() <= allowed * wanted.abs().max()


@pytest.mark.parametrize(
    "first", [Conv2dSame(1, 3, 3, stride=2), StdConv2d(1, 3, 3), WithHook()], ids=lambda layer: type(layer).__name__
)
def test_convolution_that_does_more_than_convolve_takes_the_long_way(first: nn.Conv2d) -> None:
    assert not takes_the_short_way(framed(Stem(first).requires_grad_(False), SHAPE, torch.float32, "cpu"))


def test_equal_features_are_not_enough_for_the_short_way() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 3, 3)

        def forward(self, images: Tensor) -> Tensor:
            nothing = images - images.detach()  # zero, framed or not; its gradient is the whole image
            features: Tensor = self.first(images)
            return features.flatten(1) + nothing.sum(dim=(1, 2, 3))[:, None]

    forward = framed(Odd().requires_grad_(False), SHAPE, torch.float32, "cpu")
    assert not takes_the_short_way(forward)


def test_network_without_a_gradient_is_refused() -> None:
    model = Stem(nn.Conv2d(1, 3, 3), torch.Tensor.detach).requires_grad_(False)
    assert "tune.frame_px to 0" in refused(ParamsError, lambda: framed(model, SHAPE, torch.float32, "cpu"))


@pytest.mark.parametrize(("precision", "mend"), [(torch.float32, "another model"), (torch.bfloat16, "tune.precision to float32")])
def test_network_whose_values_are_no_numbers_is_refused(precision: torch.dtype, mend: str) -> None:
    model = Stem(nn.Conv2d(1, 3, 3), lambda images: images * torch.inf).requires_grad_(False)
    assert mend in refused(ParamsError, lambda: framed(model, SHAPE, precision, "cpu"))


def test_trial_moves_no_random_numbers() -> None:
    original = network("resnet18")
    before = torch.get_rng_state()
    framed(original, SHAPE, torch.float32, "cpu")
    assert torch.equal(before, torch.get_rng_state())
