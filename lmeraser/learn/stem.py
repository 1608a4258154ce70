"""The frame enters a network at its first convolution, and its gradient leaves there.

A frame is the same for every image of a batch, so its gradient is the sum over the batch of each image's gradient. A convolution
is linear: the sum of the transposed convolutions is the transposed convolution of the sum, which is one image's work instead of
a batch's. That backward pass to the pixels was 7 % of a training step of the lab's backbone (`python -m bench.speed`).
"""

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn


class _FramedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, frame: Tensor, convolution: nn.Conv2d) -> Tensor:
        ctx.convolution, ctx.side = convolution, images.shape[-2:]
        framed = (images + frame).to(convolution.weight.dtype)
        return cast("Tensor", convolution(framed.contiguous(memory_format=torch.channels_last)))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        conv = ctx.convolution
        height, width = gradients[0].shape[-2:]
        # As rows of a matrix, as they lie in memory (channels last), they are added ten times faster than as (b, k, h', w').
        total = gradients[0].permute(0, 2, 3, 1).flatten(1).sum(0).float()  # (h' w' k), summed in float32, rounded once
        # A product and a fold, not a convolution's backward pass: at batch 1 that is known to change its bits.
        patches = conv.weight.float().flatten(1).t() @ total.view(height * width, -1).t()  # (c kh kw, h' w')
        gradient = nn.functional.fold(
            patches, ctx.side, conv.kernel_size, dilation=conv.dilation, padding=conv.padding, stride=conv.stride
        )
        return None, gradient, None


class _Framed(nn.Module):
    """A first convolution that adds a frame, set before each pass, to what it is given."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.frame: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        return cast("Tensor", _FramedConvolution.apply(images, self.frame, self.convolution))


def _first(model: nn.Module, images: Tensor) -> str | None:
    """The name of the convolution that is given the images themselves; None if there is no such one or several."""
    found: list[nn.Module] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, given: found.append(module) if given and given[0] is images else None)
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
        and isinstance(module.padding, tuple)
        and module.padding_mode == "zeros"
        and module.groups == 1
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    names = [name for name, module in model.named_modules() if module in found]
    return names[0] if len(names) == 1 else None


def _plain(model: nn.Module, precision: torch.dtype) -> Callable[[Tensor, Tensor], Tensor]:
    def forward(images: Tensor, frame: Tensor) -> Tensor:
        framed = (images + frame).to(precision)
        return cast("Tensor", model(framed.contiguous(memory_format=torch.channels_last)))

    return forward


def framed(
    model: nn.Module, shape: tuple[int, int, int], precision: torch.dtype, device: str
) -> Callable[[Tensor, Tensor], Tensor]:
    """A copy of a frozen network in a precision, as a function of images and a frame.

    Args: shape: (c, s, s) of an image.
    Returns: (b, c, s, s) float32 normalised images and a (c, s, s) frame to (b, d) features; the gradient reaches the frame.
        Networks that use their input elsewhere than in one first convolution take the long way.
    """
    model = copy.deepcopy(model).to(precision)
    images = torch.zeros(1, *shape, device=device)
    plain = _plain(model, precision)
    with torch.no_grad():
        # Not symmetric, so that another use of the images cannot go unnoticed.
        trial = torch.linspace(-1, 1, images.numel(), device=device).view(shape)
        name = _first(model, images.to(precision))
        expected = plain(images, trial)
    if name is None:
        return plain
    parent, _, last = name.rpartition(".")
    stem = _Framed(cast("nn.Conv2d", model.get_submodule(name)))
    setattr(model.get_submodule(parent), last, stem)

    def forward(images: Tensor, frame: Tensor) -> Tensor:
        stem.frame = frame
        return cast("Tensor", model(images))

    with torch.no_grad():
        if not torch.equal(forward(images, trial), expected):
            setattr(model.get_submodule(parent), last, stem.convolution)
            return plain
    return forward
