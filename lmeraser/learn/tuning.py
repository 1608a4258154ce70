"""Tune: one cluster's pixel-frame prompt and linear head, from that cluster's records alone.

Xu et al. 2024 (arXiv:2404.11056, section 4.3) tune one prompt and one head a cluster over a frozen backbone; the pixel frame is
that of Bahng et al. 2022 (arXiv:2203.17274). Unlike the authors' code nothing is shared between clusters and training stops
at a fixed epoch (docs/decisions/0004).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmeraser.clusters.skeleton import Skeleton
from lmeraser.core.digest import seed_for
from lmeraser.core.errors import BadInputError
from lmeraser.core.params import Params, Tune
from lmeraser.core.progress import track
from lmeraser.learn.augmentation import augment, draws, epoch_order
from lmeraser.learn.backbone import Backbone
from lmeraser.learn.cluster_model import ClusterModel
from lmeraser.learn.memory import batch_that_fits
from lmeraser.learn.precision import PRECISIONS, resolve
from lmeraser.learn.stem import framed


def border(size: int, frame_px: int) -> Tensor:
    """(1, s, s) float32: 1 on the outer `frame_px` pixels."""
    mask = torch.ones(1, size, size)
    if frame_px:
        mask[:, frame_px:-frame_px, frame_px:-frame_px] = 0
    else:
        mask.zero_()
    return mask


def batch_size(n: int, tune: Tune) -> int:
    """`batch`, halved (not below `min_batch`) until an epoch has at least two steps: a function of the cluster's size."""
    size = tune.batch
    while size // 2 >= tune.min_batch and n < 2 * size:
        size //= 2
    return size


def rate_at(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate: a linear warm-up, then half a cosine to zero (Loshchilov and Hutter 2017)."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + float(np.cos(np.pi * (step - rising) / max(1, steps - rising))))


class _Cluster:
    """The state of one training: parameters, optimiser and schedule, shared with nobody. All start at zero."""

    def __init__(self, n: int, n_labels: int, backbone: Backbone, skeleton: Skeleton, tune: Tune) -> None:
        side, device = backbone.image.size, backbone.device
        shape = (backbone.image.channels, side, side)
        if tune.frame_px:  # else the features never change, and a network without a gradient will do
            self.model = framed(backbone.model, shape, PRECISIONS[resolve(tune.precision, device)], device)
        self.mask = border(side, tune.frame_px).to(device)
        self.frame = torch.zeros(shape, device=device, requires_grad=tune.frame_px > 0)
        self.head = nn.Linear(skeleton.dim, n_labels, device=device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.mean, self.scale = (torch.from_numpy(x).to(device) for x in (skeleton.mean, skeleton.scale))
        self.axes = torch.from_numpy(skeleton.float_axes).to(device) if skeleton.axes.shape[1] else None
        self.batch = batch_size(n, tune)
        self.steps = tune.epochs * -(-n // self.batch)
        groups: list[dict[str, Any]] = [{"params": self.head.parameters(), "lr": tune.head_rate, "weight_decay": tune.head_decay}]
        if tune.frame_px:
            groups.append({"params": [self.frame], "lr": tune.frame_rate, "weight_decay": 0.0})
        self.optimiser = torch.optim.SGD(groups, momentum=tune.momentum)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, lambda step: rate_at(step, self.steps, tune.warmup))

    def features(self, inputs: Tensor) -> Tensor:
        """(b, c, s, s) normalised to (b, d) standardised; the gradient reaches the frame and no weight."""
        scaled = (self.model(inputs, self.frame * self.mask).float() - self.mean) / self.scale
        return scaled if self.axes is None else scaled @ self.axes

    def step(self, features: Tensor, target: Tensor, weight: Tensor) -> None:
        losses = nn.functional.cross_entropy(self.head(features), target, reduction="none")
        self.optimiser.zero_grad(set_to_none=True)
        ((losses * weight).sum() / weight.sum()).backward()
        self.optimiser.step()
        self.schedule.step()


def tune_cluster(
    ids: Sequence[str],
    pixels: NDArray[np.uint8],
    labels: Sequence[str],
    backbone: Backbone,
    skeleton: Skeleton,
    params: Params,
    name: str,
) -> ClusterModel:
    """Train one cluster's prompt and head.

    Args:
        ids: (n,) record ids, sorted; pixels: (n, s, s, c) uint8 and labels in the same order.
        name: the slot, for progress alone.
    Returns: prompt and head after the last epoch, float32, on the CPU.
    Raises: BadInputError if n == 0; an emptied cluster is retired, not trained.
    Exactness: no optimiser, schedule, batch or stopping rule is shared with another cluster; order and augmentation of a
        record are functions of its id.
    """
    if not ids:
        raise BadInputError(f"{name}: no records to train on; an empty cluster is retired, not trained")
    tune, n = params.tune, len(ids)
    classes = sorted(set(labels))
    target = torch.tensor([classes.index(label) for label in labels], device=backbone.device)
    with batch_that_fits("tune.batch", batch_size(n, tune)):
        state = _Cluster(n, len(classes), backbone, skeleton, tune)
    # Without a frame the features never change: they are computed once, unaugmented.
    fixed = None if tune.frame_px else skeleton.standardise(backbone.features(pixels, params.embed.batch))
    seed = seed_for(params.seed, "tune")
    per_epoch = state.steps // tune.epochs
    with batch_that_fits("tune.batch", state.batch):
        for step in track(range(state.steps), state.steps, f"tune {name}", "batch"):
            epoch, place = divmod(step, per_epoch)
            if place == 0:
                drawn = draws(ids, epoch, seed)
                order = epoch_order(drawn)
            chosen = order[place * state.batch : (place + 1) * state.batch]
            weight = torch.zeros(state.batch, device=backbone.device)
            weight[: len(chosen)] = 1
            chosen = np.resize(chosen, state.batch)  # the last batch repeats its records with weight 0
            if fixed is None:
                moved = augment(pixels[chosen], drawn[chosen], tune.shift_px, tune.flip)
                features = state.features(backbone.normalise(moved))
            else:
                features = torch.from_numpy(fixed[chosen]).to(backbone.device)
            state.step(features, target[torch.from_numpy(chosen).to(backbone.device)], weight)
    frame = (state.frame * state.mask).detach().cpu().numpy()
    weights, bias = (value.detach().cpu().numpy() for value in (state.head.weight, state.head.bias))
    return ClusterModel(frame, weights, bias, classes)
