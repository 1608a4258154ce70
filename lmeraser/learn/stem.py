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

from lmeraser.core.errors import ParamsError
from lmeraser.learn.memory import is_full

Way = Callable[[Tensor, Tensor], Tensor]  # images and a frame to features
TRIALS = 3  # images
# Largest difference of the two gradients, as a share of the largest value. What comes back to the convolution's output is the
# same bits. From there on the plain way rounds each image's gradient to bfloat16 (2^-9 of it) and the short way none; in float32
# both only add in another order. A stem that pads, scales or reads elsewhere is wrong by tens of per cent.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2e-2}


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


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is a convolution of its input with its weight and nothing else: some pad or rescale in their forward."""
    return (
        isinstance(module, nn.Conv2d)
        and type(module).forward is nn.Conv2d.forward
        and isinstance(module.padding, tuple)
        and module.padding_mode == "zeros"
        and module.groups == 1
    )


def _first(model: nn.Module, images: Tensor) -> str | None:
    """The name of the plain convolution that is given the images themselves; None if there is no such one or several."""
    receivers: list[nn.Module] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, given: receivers.append(module) if given and given[0] is images else None)
        for module in model.modules()
        if _is_plain(module)
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    names = [name for name, module in model.named_modules() if module in receivers]
    return names[0] if len(names) == 1 else None


def _plain(model: nn.Module, precision: torch.dtype) -> Way:
    def forward(images: Tensor, frame: Tensor) -> Tensor:
        framed = (images + frame).to(precision)
        return cast("Tensor", model(framed.contiguous(memory_format=torch.channels_last)))

    return forward


def _tried(way: Way, shape: tuple[int, int, int], device: str) -> tuple[Tensor, Tensor | None]:
    """Features of three random images with a random frame, and the frame's gradient of a loss that weighs each by its own.

    Drawn at random, so that a way that takes another place, another weight or half the batch cannot look right. The generator
    is the trial's own: nothing else's draws move.
    """
    generator = torch.Generator().manual_seed(0)
    images, frame = (torch.randn(*size, generator=generator).to(device) for size in ((TRIALS, *shape), shape))
    frame.requires_grad_()
    with torch.enable_grad():
        features = way(images.contiguous(memory_format=torch.channels_last), frame)
        if not features.requires_grad:
            return features.detach(), None
        loss = (features.float() * torch.randn(*features.shape, generator=generator).to(device)).sum()
        (gradient,) = torch.autograd.grad(loss, frame, allow_unused=True)
    return features.detach(), gradient


def _require_sound(features: Tensor, gradient: Tensor | None, precision: torch.dtype) -> Tensor:
    """The gradient, once it is there and all are numbers. Raises: ParamsError."""
    if gradient is None:
        raise ParamsError(
            "params.yaml: pretrain.model passes no gradient to its input, so no frame can be tuned; set tune.frame_px to 0 "
            "(heads alone), or take another model"
        )
    if not bool(torch.isfinite(features).all()) or not bool(torch.isfinite(gradient).all()):
        mend = "take another model" if precision == torch.float32 else "set tune.precision to float32, or take another model"
        raise ParamsError(
            f"params.yaml: pretrain.model computes values that are not finite (NaN or infinity) in {str(precision)[6:]}; {mend}"
        )
    return gradient


def _same(short: tuple[Tensor, Tensor | None], features: Tensor, gradient: Tensor, precision: torch.dtype) -> bool:
    if short[1] is None or not torch.equal(short[0], features):
        return False
    reach = float(gradient.abs().max())
    return reach > 0 and float((short[1] - gradient).abs().max()) <= TOLERANCE[precision] * reach


def framed(model: nn.Module, shape: tuple[int, int, int], precision: torch.dtype, device: str) -> Way:
    """A copy of a frozen network in a precision, as a function of images and a frame.

    Args: shape: (c, s, s) of an image.
    Returns: (b, c, s, s) float32 normalised images and a (c, s, s) frame to (b, d) features; the gradient reaches the frame.
        The short way is taken where a trial gives the plain way's features, bit by bit, and its gradient.
    Raises: ParamsError if no gradient comes back, or values that are no numbers.
    """
    model = copy.deepcopy(model).to(precision)
    plain = _plain(model, precision)
    features, trial_gradient = _tried(plain, shape, device)
    gradient = _require_sound(features, trial_gradient, precision)
    with torch.no_grad():
        name = _first(model, torch.zeros(1, *shape, device=device, dtype=precision))
    if name is None:
        return plain
    parent, _, last = name.rpartition(".")
    stem = _Framed(cast("nn.Conv2d", model.get_submodule(name)))
    setattr(model.get_submodule(parent), last, stem)

    def forward(images: Tensor, frame: Tensor) -> Tensor:
        stem.frame = frame
        return cast("Tensor", model(images))

    try:
        if _same(_tried(forward, shape, device), features, gradient, precision):
            return forward
    except RuntimeError as error:  # the patches do not fit (a hook that pads, say), or the network wants one type for all
        if is_full(error):  # which way is taken must not depend on free memory
            raise
    setattr(model.get_submodule(parent), last, stem.convolution)
    return plain
