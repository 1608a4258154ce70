"""Images a second, against plain loops and against the device's rate of matrix products in the same run."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.gpu.bits import Section
from bench.gpu.ground import CLASSES, Ground, Sizes, peak_of, seconds_of, settings, synthetic, torchs_defaults, wait
from bench.speed.plain import PlainLoop
from lmeraser.learn.augmentation import augment, draws
from lmeraser.learn.precision import PRECISIONS
from lmeraser.learn.tuning import _Cluster, border

CLUSTERS = 32  # of the paper's loop
Rates = dict[str, float]  # precision to FLOP/s of matrix products


def products(device: str, sizes: Sizes) -> Section:
    """FLOP/s of square matrix products of random numbers, by type. Without TF32, as the product computes."""
    rates = {}
    for name, precision in PRECISIONS.items():
        side = sizes.square if precision == torch.bfloat16 else sizes.square // 2
        left, right = (torch.randn(side, side, device=device).to(precision) for _ in range(2))
        out = torch.empty_like(left)
        rates[name] = 2 * side**3 / seconds_of(lambda a=left, b=right, c=out: torch.mm(a, b, out=c), device, sizes.seconds)  # type: ignore[misc]
    return {"flop_per_second": rates, "side": {"bfloat16": sizes.square, "float32": sizes.square // 2}}


def _against(rate: float, flops: int, ceilings: Rates) -> dict[str, float]:
    """Images a second as a share of each measured rate of products: model-FLOP utilisation."""
    return {name: rate * flops / ceiling for name, ceiling in ceilings.items()}


def _tune_rate(ground: Ground, precision: str, section: Section) -> float:
    """Images a second of `tune_cluster`, everything included."""
    records, epochs = ground.sizes.timed, ground.sizes.epochs
    ground.tuned(precision, 2 * ground.params.tune.batch, 1)
    wait(ground.device)
    with peak_of(ground.device, section):
        start = time.perf_counter()
        ground.tuned(precision, records, epochs)
        wait(ground.device)
        return records * epochs / (time.perf_counter() - start)


def _parts(ground: Ground, precision: str) -> dict[str, float]:
    """Milliseconds of a batch: augmenting (processor), moving and normalising, the network's step (device)."""
    params = settings(ground.name, ground.device, ground.small, precision=precision)
    tune, batch, device, limit = params.tune, params.tune.batch, ground.device, ground.sizes.seconds / 2
    ids, pixels, _ = synthetic(batch, params.image.size)
    drawn = draws(ids, 0, 0)
    state = _Cluster(10**6, CLASSES, ground.backbone, ground.skeleton, tune)  # so many that the schedule does not end
    inputs = ground.backbone.normalise(pixels)
    target, weight = torch.arange(batch, device=device) % CLASSES, torch.ones(batch, device=device)
    actions: dict[str, Callable[[], Any]] = {
        "augment": lambda: augment(pixels, drawn, tune.shift_px, tune.flip),
        "move_and_normalise": lambda: ground.backbone.normalise(pixels),
        "network": lambda: state.step(state.features(inputs), target, weight),
    }
    spent = {name: 1e3 * seconds_of(action, device, limit) for name, action in actions.items()}
    with torchs_defaults():
        spent["network_under_torchs_defaults"] = 1e3 * seconds_of(actions["network"], device, limit)
    return spent


def _plain_step(ground: Ground, precision: str) -> Callable[[], None]:
    """One frame and one head as anybody would write it: tensors on the device, autocast, the gradient down to the pixels."""
    params, device, model = ground.params, ground.device, ground.backbone.model
    side, batch = params.image.size, params.tune.batch
    images = torch.randn(batch, 3, side, side, device=device)
    target = torch.arange(batch, device=device) % CLASSES
    frame = torch.zeros(3, side, side, device=device, requires_grad=True)
    mask = border(side, params.tune.frame_px).to(device)
    head = nn.Linear(ground.backbone.dim, CLASSES, device=device)
    optimiser = torch.optim.SGD([frame, *head.parameters()], lr=0.01, momentum=0.9)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = nn.functional.cross_entropy(head(model(images + frame * mask)), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def _papers_step(ground: Ground) -> Callable[[], float]:
    """The paper's loop (bench/speed/plain.py), float32: all clusters' frames and heads over one batch."""
    params, device = ground.params, ground.device
    side, batch = params.image.size, params.tune.batch
    images, labels = torch.randn(batch, 3, side, side, device=device), torch.arange(batch, device=device) % CLASSES
    prototypes = torch.randn(CLUSTERS, ground.backbone.dim, device=device)
    with torch.device(device):
        loop = PlainLoop(ground.backbone.model, prototypes, side, params.tune.frame_px, CLASSES)
    return lambda: loop.step(images, labels)


def training(ground: Ground, precision: str, ceilings: Rates) -> Section:
    """A training step in one cluster: ours with everything, its parts, a plain loop's and, in float32, the paper's."""
    batch, flops, limit = ground.params.tune.batch, ground.shape.step, ground.sizes.seconds
    section: Section = {"batch": batch, "flop_per_image": flops}
    ours = _tune_rate(ground, precision, section)
    parts = _parts(ground, precision)
    with torchs_defaults():
        plain = batch / seconds_of(_plain_step(ground, precision), ground.device, limit)
        papers = batch / seconds_of(_papers_step(ground), ground.device, limit) if precision == "float32" else None
    network = batch / (parts["network"] / 1e3)
    return section | {
        "images_per_second": {"ours": ours, "our_network_alone": network, "plain": plain, "papers": papers},
        "ours_over_plain": ours / plain,
        "network_over_plain": network / plain,
        "utilisation": _against(ours, flops, ceilings),
        "utilisation_of_the_network_alone": _against(network, flops, ceilings),
        "utilisation_plain": _against(plain, flops, ceilings),
        "milliseconds_per_batch": parts,
    }


def embedding(ground: Ground, ceilings: Rates) -> Section:
    """Forward passes alone: ours from decoded pixels to float32 rows, and a plain loop over tensors on the device."""
    params, device, flops, limit = ground.params, ground.device, ground.shape.forward, ground.sizes.seconds
    batch, side = params.embed.batch, params.image.size
    _, pixels, _ = synthetic(2 * batch, side, seed=5)
    section: Section = {"batch": batch, "flop_per_image": flops}
    with peak_of(device, section):
        ours = len(pixels) / seconds_of(lambda: ground.backbone.features(pixels, batch), device, limit)
    images = torch.randn(batch, 3, side, side, device=device)

    def plain(half: bool) -> None:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=half):
            ground.backbone.model(images)

    with torchs_defaults():
        loops = {name: batch / seconds_of(lambda half=half: plain(half), device, limit) for name, half in  # type: ignore[misc]
                 (("plain_float32", False), ("plain_bfloat16", True))}  # fmt: skip
    rates = {"ours_float32": ours, **loops}
    return section | {
        "images_per_second": rates,
        "ours_over_plain_float32": ours / loops["plain_float32"],
        "utilisation": {name: _against(rate, flops, ceilings) for name, rate in rates.items()},
        "finite": bool(np.isfinite(ground.backbone.features(pixels, batch)).all()),
    }
