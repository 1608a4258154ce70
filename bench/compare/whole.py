"""Whole models per shard: SISA (Bourtoule et al. 2021, arXiv:1912.03817) as published, and with one shard full retraining.

Every shard fine-tunes all weights of the public backbone and a classifier on its own records, slice by slice with the state kept
in between; the answers are averaged. In its favour: it starts from the same public backbone as everybody else, which need never
be erased, instead of from nothing. As in the paper an epoch over s growing slices is worth 2 / (s + 1) of one over all.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.compare.peers import Ground, Part, Peer, Probabilities, Rows
from bench.lab import pipeline as pipe
from lmeraser.core.digest import seed_for
from lmeraser.learn.augmentation import augment, draws, epoch_order
from lmeraser.learn.backbone import build
from lmeraser.learn.precision import PRECISIONS, resolve
from lmeraser.learn.tuning import batch_size, rate_at
from lmeraser.serve.serving import softmax

RATE, DECAY = 0.02, 5e-4  # SGD's peak rate and weight decay: customary for fine-tuning, not searched


class Whole(Peer):
    """Shards of whole models."""

    def __init__(self, name: str, ground: Ground, shards: int, slices: int = 1) -> None:
        super().__init__(name, ground)
        self.slices, self.passes = slices, float(shards)
        self.epochs = max(1.0, round(self.epochs * 2 / (slices + 1)))
        self.shard = ground.spread("shard", shards)

    def partition(self, kept: NDArray[np.bool_]) -> Rows:
        return np.where(kept, self.shard, -1)

    def _model(self, part: Part | None) -> nn.Module:
        params = self.ground.params
        model = build(params.pretrain, params.image, len(self.ground.labels))
        if part is None:
            model.load_state_dict(self.ground.unfolded, strict=False)
            nn.init.zeros_(model.get_classifier().weight)  # type: ignore[operator]
            nn.init.zeros_(model.get_classifier().bias)  # type: ignore[operator]
        else:
            model.load_state_dict({key: torch.from_numpy(value) for key, value in part.items()})
        return model.to(memory_format=torch.channels_last)

    def train(self, rows: Rows, start: Part | None) -> Part:
        ground, tune = self.ground, self.ground.params.tune
        pixels, ids = ground.data.train.pixels[rows], [ground.ids[row] for row in rows]
        target = torch.tensor([ground.labels.index(ground.data.train.records[row].label) for row in rows])
        model = self._model(start).train()
        batch = min(batch_size(len(rows), tune), len(rows))
        per_epoch = max(1, len(rows) // batch)  # a short last batch would disturb the batch statistics
        steps = per_epoch * int(self.epochs)
        optimiser = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, nesterov=True, weight_decay=DECAY)
        seed = seed_for(ground.params.seed, "whole")
        precision = resolve(tune.precision, "cpu")
        for step in range(steps):
            epoch, place = divmod(step, per_epoch)
            if place == 0:
                drawn = draws(ids, epoch, seed)
                order = epoch_order(drawn)
            chosen = order[place * batch : (place + 1) * batch]
            moved = augment(pixels[chosen], drawn[chosen], tune.shift_px, tune.flip)
            for group in optimiser.param_groups:
                group["lr"] = RATE * rate_at(step, steps, tune.warmup)
            with torch.autocast("cpu", dtype=PRECISIONS[precision], enabled=precision != "float32"):
                scores = model(ground.backbone.normalise(moved))
            optimiser.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(scores.float(), target[chosen]).backward()
            optimiser.step()
        return {key: value.detach().contiguous().numpy().copy() for key, value in model.state_dict().items()}

    def answer(self, groups: Sequence[tuple[int, Rows, Part]]) -> dict[str, Probabilities]:
        pixels = self.ground.data.test.pixels

        def probabilities_of(part: Part) -> Probabilities:
            model = self._model(part).eval()
            scores = []
            with torch.inference_mode():
                for first in range(0, len(pixels), 256):
                    inputs = self.ground.backbone.normalise(pixels[first : first + 256])
                    with torch.autocast("cpu", dtype=torch.bfloat16):
                        scores.append(model(inputs).float().numpy())
            return softmax(np.concatenate(scores))

        return {"served": np.mean(pipe.side_by_side(probabilities_of, [part for _, _, part in groups]), axis=0)}
