"""Pretrain: the backbone learns to tell the public classes apart, and is then frozen."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmeraser.core.digest import seed_for
from lmeraser.core.params import Params, Precision
from lmeraser.core.progress import track
from lmeraser.learn.augmentation import augment, draws, epoch_order
from lmeraser.learn.backbone import Backbone, build, pixel_statistics, require_size
from lmeraser.learn.memory import batch_that_fits
from lmeraser.learn.precision import PRECISIONS, pretraining_precision


def loss(model: nn.Module, inputs: Tensor, target: Tensor, precision: Precision, device: str) -> Tensor:
    """Cross-entropy of a batch: (b, c, s, s) normalised, (b,) class indices."""
    with torch.autocast(device, dtype=PRECISIONS[precision], enabled=precision != "float32"):
        scores = model(inputs)
    return nn.functional.cross_entropy(scores.float(), target)


def pretrain_backbone(
    ids: Sequence[str], pixels: NDArray[np.uint8], labels: Sequence[str], params: Params
) -> tuple[nn.Module, list[float], list[float]]:
    """Train a timm model on the public training records.

    Args:
        ids: (n,) record ids, sorted.
        pixels: (n, s, s, c) uint8 in the same order.
        labels: (n,) public labels.
    Returns: the model without its classifier, and the mean and standard deviation of the public pixels.
    """
    settings = params.pretrain
    torch.manual_seed(seed_for(params.seed, "pretrain"))
    classes = sorted(set(labels))
    target = torch.tensor([classes.index(label) for label in labels], device=params.device)
    model = build(settings, params.image, len(classes))
    require_size(model, params)
    precision = pretraining_precision(model, settings, params.image, params.device)
    model = model.to(params.device).to(memory_format=torch.channels_last)
    mean, std = pixel_statistics(pixels)
    statistics = [torch.tensor(values, dtype=torch.float32, device=params.device) for values in (mean, std)]
    normalise = Backbone(model, statistics[0], statistics[1], params.image, params.device, 0).normalise
    batch = min(settings.batch, len(ids))
    steps = len(ids) // batch  # a short last batch would disturb the batch statistics
    optimiser = torch.optim.SGD(
        model.parameters(), lr=settings.peak_rate, momentum=0.9, nesterov=True, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=settings.peak_rate, total_steps=settings.epochs * steps, cycle_momentum=False
    )
    seed = seed_for(params.seed, "pretrain-order")
    model.train()

    def batches() -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
        for epoch in range(settings.epochs):
            drawn = draws(ids, epoch, seed)
            order = epoch_order(drawn)
            for step in range(steps):
                chosen = order[step * batch : (step + 1) * batch]
                yield chosen, augment(pixels[chosen], drawn[chosen], settings.shift_px, settings.flip)

    with batch_that_fits("pretrain.batch", batch):
        for chosen, moved in track(batches(), settings.epochs * steps, "pretrain", "batch"):
            inputs, wanted = normalise(moved), target[torch.from_numpy(chosen).to(params.device)]
            optimiser.zero_grad(set_to_none=True)
            loss(model, inputs, wanted, precision, params.device).backward()
            optimiser.step()
            schedule.step()
    cast("Any", model).reset_classifier(0)
    return model.eval(), mean, std
