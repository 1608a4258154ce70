"""Whether bits are equal: a cluster tuned twice, attention's backward pass, an image among others, a record subtracted."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend

from bench.gpu.ground import Ground, digest, digest_of, peak_of, seconds_of, synthetic, torchs_defaults
from lmeraser.clusters.global_head import Sums, rule_of, solve, total
from lmeraser.core.errors import ParamsError
from lmeraser.learn.backbone import require_size
from lmeraser.learn.embedding import exact_sums
from lmeraser.learn.precision import PRECISIONS
from lmeraser.learn.stem import _Framed, framed

Section = dict[str, Any]


def tuning(ground: Ground, precision: str) -> Section:
    """One cluster tuned twice, the second time after other work has moved the memory; and once under torch's defaults.

    `equal` needs a frame that moved and is made of numbers: equal bits of a dead frame say nothing.
    """
    sizes = ground.sizes
    section: Section = {}
    with peak_of(ground.device, section):
        model = ground.tuned(precision, sizes.records, sizes.epochs)
    between = torch.ones(12_345_679, device=ground.device)  # the second run's tensors lie elsewhere
    again = ground.tuned(precision, sizes.records, sizes.epochs)
    del between
    with torchs_defaults():
        loose = ground.tuned(precision, sizes.records, sizes.epochs)
    moved = float(np.abs(model.frame).max())
    alive = moved > 0 and all(bool(np.isfinite(part).all()) for part in (model.frame, model.weight, model.bias))
    return section | {
        "equal": alive and digest_of(model) == digest_of(again),
        "digests": [digest_of(model), digest_of(again)],
        "steps": sizes.epochs * -(-sizes.records // ground.params.tune.batch),
        "largest_frame_value": moved,
        "short_way": takes_the_short_way(ground, precision),
        "torchs_defaults_give_these_bits": digest_of(loose) == digest_of(model),
    }


def takes_the_short_way(ground: Ground, precision: str) -> bool:
    """Whether the frame's gradient leaves at the first convolution (lmeraser/learn/stem.py)."""
    side = ground.params.image.size
    way: Any = framed(ground.backbone.model, (ground.params.image.channels, side, side), PRECISIONS[precision], ground.device)
    return any(isinstance(cell.cell_contents, _Framed) for cell in way.__closure__ or ())


def digests(grounds: list[Ground], precisions: list[str]) -> dict[str, str]:
    """What another process is to repeat: `network precision` to the digest of the tuned cluster, the last case first."""
    cases = [(ground, precision) for ground in grounds for precision in precisions]
    return {
        f"{ground.name} {precision}": digest_of(ground.tuned(precision, ground.sizes.records, ground.sizes.epochs))
        for ground, precision in reversed(cases)
    }


def _attention_step(ground: Ground, precision: str) -> tuple[Callable[[], list[torch.Tensor]], Callable[[], str]]:
    """Attention of a training batch: a call that gives output and gradients, and one that gives the kernel's name."""
    shape, generator = ground.shape, torch.Generator().manual_seed(0)
    size = (ground.params.tune.batch, shape.heads, shape.tokens, shape.width // shape.heads)
    drawn = [torch.randn(size, generator=generator).to(ground.device, PRECISIONS[precision]) for _ in range(4)]
    query, key, value = (part.requires_grad_() for part in drawn[:3])

    def step() -> list[torch.Tensor]:
        output = functional.scaled_dot_product_attention(query, key, value)
        return [output.detach(), *torch.autograd.grad(output, (query, key, value), drawn[3])]

    return step, lambda: SDPBackend(torch._fused_sdp_choice(query, key, value)).name


def attention(ground: Ground, precision: str) -> Section:
    """Attention of a training batch: the kernel that torch chooses, whether bits repeat, and what determinism costs."""
    step, kernel = _attention_step(ground, precision)
    limit = ground.sizes.seconds / 4
    first = step()
    equal = all(all(map(torch.equal, first, step())) for _ in range(ground.sizes.repeats))
    section = {
        "equal": equal,
        "kernel": kernel(),
        "milliseconds": 1e3 * seconds_of(step, ground.device, limit),
    }
    with torchs_defaults():
        loose = step()
        section |= {
            "torchs_defaults_kernel": kernel(),
            "torchs_defaults_repeat": all(all(map(torch.equal, loose, step())) for _ in range(ground.sizes.repeats)),
            "torchs_defaults_milliseconds": 1e3 * seconds_of(step, ground.device, limit),
        }
    return section


def rows(ground: Ground) -> Section:
    """One image's features in full batches of one size: at each place, among others, padded; then in batches of other sizes.

    `equal` is what the product relies on, one batch size. Other sizes are measured and promised by nobody.
    """
    batch, backbone = ground.params.embed.batch, ground.backbone
    _, pixels, _ = synthetic(2 * batch, ground.params.image.size, seed=2)
    _, others, _ = synthetic(2 * batch, ground.params.image.size, seed=3)
    image = pixels[:1]
    row = backbone.features(image, batch)[0]  # alone: the rest is padded
    places: dict[str, bool] = {}
    for place in sorted({0, 1, batch // 3, batch // 2, batch - 1}):
        for name, neighbours in (("some", pixels), ("others", others)):
            mixed = neighbours[:batch].copy()
            mixed[place] = image[0]
            places[f"place {place} among {name}"] = bool((backbone.features(mixed, batch)[place] == row).all())
    same = backbone.features(np.repeat(image, batch, axis=0), batch)
    places["a batch of it alone"] = bool((same == row).all())
    sizes = sorted({1, 2, batch // 4, batch // 2, batch + 1, 2 * batch})
    checked = "yes"
    try:
        require_size(backbone.model, ground.params)
    except ParamsError as error:
        checked = str(error)
    return {
        "equal": all(places.values()) and checked == "yes",
        "batch": batch,
        "places": places,
        "other_batch_sizes": {str(size): bool((backbone.features(pixels[:size], size)[0] == row).all()) for size in sizes},
        "product_accepts_the_network": checked,
        "digest": digest(row),
    }


def erasing(ground: Ground) -> Section:
    """One record subtracted from the global head's sums, against sums rebuilt without it from the images.

    The rebuild embeds the images that are left anew: all behind the erased one stand at another place of another batch.
    """
    params, count, erased = ground.params, ground.sizes.erased, 7
    _, pixels, labels = synthetic(count, params.image.size, seed=4)
    kept = [row for row in range(count) if row != erased]
    rule = rule_of(params, ground.skeleton.step, ground.skeleton.chosen)

    def sums(members: list[int]) -> Sums:
        quantised = ground.skeleton.quantise(ground.backbone.features(pixels[members], params.embed.batch))
        return exact_sums(ground.skeleton.summand(quantised, params.projection.levels), [labels[row] for row in members])

    def head(parts: list[Sums], leaving: Sums | None = None) -> str:
        return digest(solve(parts, rule, leaving=leaving).weight)

    everyone, rebuilt = sums(list(range(count))), sums(kept)
    leaving = sums([erased])
    whole, subtracted, again = head([everyone]), head([everyone], leaving), head([rebuilt])
    return {
        "equal": np.array_equal(total([everyone], leaving).gram, rebuilt.gram) and subtracted == again and subtracted != whole,
        "records": count,
        "head_before": whole,
        "head_subtracted": subtracted,
        "head_rebuilt": again,
    }
