"""Peers who train through the whole network: one prompt for all, and full fine-tuning. A deletion trains them again.

Both train in bfloat16 where the device has it, on a batch of augmented images a step. They are for a GPU (`--device cuda`): two
cores would take a day.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.compare.real.chosen import CHOSEN_ON, folds
from bench.compare.real.features import decoded, given_backbone
from bench.compare.real.outcome import Outcome
from bench.compare.real.stand import Side, Stand
from bench.lab import ROOT
from lmeraser.core.digest import seed_for
from lmeraser.core.params import Params
from lmeraser.learn.augmentation import augment, draws, epoch_order
from lmeraser.learn.backbone import Backbone
from lmeraser.learn.precision import PRECISIONS, resolve
from lmeraser.learn.tuning import rate_at, tune_cluster
from lmeraser.learn.weights import take_weights
from lmeraser.serve.serving import softmax

EPOCHS, BATCH, DECAY = 15, 128, 0.05  # of full fine-tuning by AdamW (Loshchilov and Hutter 2019): customary, not searched
RATES = (5e-5, 2e-4, 8e-4)  # its peak rates: public records choose among them
ASKED = 256  # images in a pass
Pixels = NDArray[np.uint8]
Made = TypeVar("Made")


def pixels_of(stand: Stand, side: Side) -> Pixels:
    """(n, s, s, c) of a side's records."""
    return decoded([stand.images[record.sha256] for record in side.records], stand.params)


def timed(work: Callable[[], Made], device: str) -> tuple[Made, float]:
    """What some work makes, and its seconds on the clock: a GPU has no processor time."""
    start = time.monotonic()
    made = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return made, time.monotonic() - start


def one_prompt(stand: Stand) -> Outcome:
    """One frame and one linear head for all private records, tuned as a cluster's are, by the preset's `tune`."""
    params, records, backbone = stand.params, stand.train.records, given_backbone(stand.params)
    ids, pixels = [record.id for record in records], pixels_of(stand, stand.train)
    model, seconds = timed(
        lambda: tune_cluster(ids, pixels, stand.train.labels, backbone, stand.skeleton, params, "all"), params.device
    )
    frame = torch.from_numpy(model.frame).to(params.device)
    test = stand.skeleton.standardise(backbone.features(pixels_of(stand, stand.test), params.embed.batch, frame))
    storage = model.frame.nbytes + model.weight.nbytes + model.bias.nbytes
    answer = softmax(test @ model.weight.T + model.bias)
    return Outcome(answer, model.labels, seconds, seconds, len(records) - stand.own, storage)


class Network:
    """A given network with a classifier of its own, all of it trained."""

    def __init__(self, params: Params, labels: Sequence[str]) -> None:
        self.params, self.labels = params, list(labels)
        taken = take_weights(params, ROOT)
        self.model = cast("Any", taken.model)
        self.model.reset_classifier(len(labels))
        nn.init.zeros_(self.model.get_classifier().weight)
        nn.init.zeros_(self.model.get_classifier().bias)
        self.model.to(params.device).to(memory_format=torch.channels_last)
        mean, std = (torch.tensor(each, device=params.device) for each in (taken.mean, taken.std))
        self.normalise = Backbone(self.model, mean, std, params.image, params.device, len(labels)).normalise
        self.kind = PRECISIONS[resolve("auto", params.device)]

    def scores(self, pixels: Pixels) -> Tensor:
        inputs = self.normalise(pixels)
        with torch.autocast(self.params.device, dtype=self.kind, enabled=self.kind != torch.float32):
            scores: Tensor = self.model(inputs)
        return scores.float()

    def train(self, ids: Sequence[str], pixels: Pixels, labels: Sequence[str], rate: float) -> None:
        """Args: ids, labels: of the (n, s, s, c) images. A short last batch is left out: it would disturb batch statistics."""
        tune, device = self.params.tune, self.params.device
        target = torch.tensor([self.labels.index(label) for label in labels], device=device)
        batch = min(BATCH, len(ids))
        per_epoch = len(ids) // batch
        optimiser = torch.optim.AdamW(self.model.parameters(), lr=rate, weight_decay=DECAY)
        seed = seed_for(self.params.seed, "fine-tuning")
        self.model.train()
        for step in range(per_epoch * EPOCHS):
            epoch, place = divmod(step, per_epoch)
            if not place:
                drawn = draws(ids, epoch, seed)
                order = epoch_order(drawn)
            chosen = order[place * batch : (place + 1) * batch]
            for group in optimiser.param_groups:
                group["lr"] = rate * rate_at(step, per_epoch * EPOCHS, tune.warmup)
            scores = self.scores(augment(pixels[chosen], drawn[chosen], tune.shift_px, tune.flip))
            optimiser.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(scores, target[torch.from_numpy(chosen).to(device)]).backward()
            optimiser.step()

    def probabilities(self, pixels: Pixels) -> NDArray[np.float64]:
        """(n, labels)"""
        self.model.eval()
        starts = range(0, len(pixels), ASKED)
        with torch.inference_mode():
            blocks = [torch.softmax(self.scores(pixels[start : start + ASKED]).double(), 1).cpu() for start in starts]
        answer: NDArray[np.float64] = torch.cat(blocks).numpy()
        return answer


def rate_for(stand: Stand) -> float:
    """The peak rate that answers most public records right that were left out, one of the folds; of equals the lowest."""
    few = Side(stand.public.records[:CHOSEN_ON], stand.public.features[:CHOSEN_ON])
    pixels, names = pixels_of(stand, few), np.array(few.labels, dtype=object)
    kept, out = folds(few.labels, few.people)[0]
    labels = sorted(set(names[kept]))
    right = []
    for rate in RATES:
        network = Network(stand.params, labels)
        network.train([few.records[row].id for row in kept], pixels[kept], names[kept].tolist(), rate)
        answer = np.array(labels, dtype=object)[network.probabilities(pixels[out]).argmax(1)]
        right.append(int((answer == names[out]).sum()))
    return RATES[int(np.argmax(right))]


def fine_tuned(stand: Stand) -> Outcome:
    """Every weight trained on all private records, from the given ones. The whole network is its own: it is all storage."""
    rate, records = rate_for(stand), stand.train.records
    network = Network(stand.params, sorted(set(stand.train.labels)))
    ids, pixels = [record.id for record in records], pixels_of(stand, stand.train)
    _, seconds = timed(lambda: network.train(ids, pixels, stand.train.labels, rate), stand.params.device)
    answer = network.probabilities(pixels_of(stand, stand.test))
    storage = 4 * sum(weight.numel() for weight in network.model.parameters())
    return Outcome(answer, network.labels, seconds, seconds, len(records) - stand.own, storage, chosen={"rate": rate})
