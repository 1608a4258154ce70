"""What the bench's workers do: our step and the plain loop's, embedding, routing and matrix products, over synthetic images."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.lab import ROOT
from bench.speed.report import SQUARE

if TYPE_CHECKING:  # the parent of the workers needs none of it
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from lmeraser.core.params import Params

SIDE, FRAME_PX, CLASSES, CLUSTERS = 32, 4, 10, 32
PRODUCTS = {"bfloat16": 40, "float32": 20}  # products a round
EMBEDDINGS, ROUTINGS = 3, 100  # of all images, a round


def lab_params(batch: int, epochs: int) -> "Params":
    """params.yaml of the project with the lab's backbone, image size, batch and frame."""
    from lmeraser.core.params import load_params

    base = load_params(ROOT / "params.yaml")
    kwargs = {"layers": [1, 1, 1, 1], "channels": [32, 64, 128, 256]}
    return base.model_copy(
        update={
            "image": base.image.model_copy(update={"size": SIDE, "channels": 3}),
            "pretrain": base.pretrain.model_copy(update={"model": "resnet18", "kwargs": kwargs, "small_stem": True}),
            "tune": base.tune.model_copy(
                update={
                    "frame_px": FRAME_PX,
                    "batch": batch,
                    "epochs": epochs,
                    "shift_px": 1,
                    "flip": True,
                    "precision": "bfloat16",
                }
            ),
        }
    )


def synthetic(n: int, seed: int) -> "tuple[list[str], NDArray[np.uint8], list[str]]":
    """Record ids, (n, s, s, 3) uint8 and labels."""
    import numpy as np

    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)
    return [f"{seed:08x}{row:024x}" for row in range(n)], pixels, [str(row % CLASSES) for row in range(n)]


def fresh_model(params: "Params") -> "nn.Module":
    """The backbone with random weights: its speed is that of a trained one."""
    import torch

    from lmeraser.learn.backbone import build

    torch.manual_seed(0)
    return build(params.pretrain, params.image, 0).eval()


def our_jobs(n: int, batch: int, epochs: int, seed: int) -> dict[str, Callable[[], object]]:
    """What one of our workers can do: tune its cluster, or multiply matrices."""
    import numpy as np
    import torch

    from lmeraser.clusters.skeleton import PublicFeatures, build_skeleton
    from lmeraser.learn.backbone import load_backbone, make_deterministic, save_backbone
    from lmeraser.learn.tuning import tune_cluster

    params = lab_params(batch, epochs)
    make_deterministic("cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "backbone.safetensors"
        save_backbone(path, fresh_model(params), [0.5] * 3, [0.25] * 3, params)
        backbone = load_backbone(path, params)
    ids, pixels, labels = synthetic(n, seed)
    features = backbone.features(pixels, params.embed.batch)
    skeleton = build_skeleton(PublicFeatures(features, backbone.widths, np.arange(n), labels, ids), params)

    def product(kind: str) -> None:
        square = torch.ones(SQUARE, SQUARE, dtype=getattr(torch, kind))
        for _ in range(PRODUCTS[kind]):
            torch.mm(square, square)

    def route() -> None:
        for _ in range(ROUTINGS):
            skeleton.hierarchy.route(skeleton.quantise(features))

    return {
        "tune": lambda: tune_cluster(ids, pixels, labels, backbone, skeleton, params, "bench"),
        "embed": lambda: [backbone.features(pixels, batch) for _ in range(EMBEDDINGS)],
        "route": route,
        "bfloat16": lambda: product("bfloat16"),
        "float32": lambda: product("float32"),
    }


def plain_jobs(n: int, batch: int, epochs: int, seed: int, threads: int) -> dict[str, Callable[[], object]]:
    """The plain loop: with as many images as one of our workers sees, for each thread."""
    os.environ.pop("MKL_CBWR", None)  # it asks for no reproducible bits
    import torch

    from bench.speed.plain import PlainLoop

    torch.set_num_threads(threads)
    params = lab_params(batch, epochs)
    model = fresh_model(params)
    total = n * threads  # one process with all threads sees what all our processes see
    _, pixels, names = synthetic(total, seed)
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5).div_(0.25).contiguous()
    labels = torch.tensor([int(name) for name in names])
    with torch.no_grad():
        prototypes = model(images[:CLUSTERS])
    loop = PlainLoop(model, prototypes, SIDE, FRAME_PX, CLASSES)

    def train() -> None:
        for epoch in range(epochs):
            order = torch.randperm(total, generator=torch.Generator().manual_seed(epoch))
            for start in range(0, total, batch):
                chosen = order[start : start + batch]
                loop.step(images[chosen], labels[chosen])

    features = model(images).detach() if total <= 4096 else torch.cat([model(part).detach() for part in images.split(1024)])

    def embed() -> None:
        with torch.no_grad():
            for _ in range(EMBEDDINGS):
                for start in range(0, total, batch):
                    model(images[start : start + batch])

    def route() -> None:
        for _ in range(ROUTINGS):
            torch.cdist(features, prototypes).argmin(1)

    return {"tune": train, "embed": embed, "route": route}


def work(kind: str, n: int, batch: int, epochs: int, seed: int, threads: int) -> None:
    """A worker: one job's name a line on standard input, one line back when it is done."""
    out = os.fdopen(os.dup(1), "w")
    jobs = our_jobs(n, batch, epochs, seed) if kind == "ours" else plain_jobs(n, batch, epochs, seed, threads)
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        jobs[line.strip()]()
        print("done", file=out, flush=True)
