"""The loop that the paper's code runs, written anew in plain PyTorch: the yardstick of `bench.speed`.

All clusters in one process: per batch the frozen backbone routes the images to their nearest prototypes, then each image alone
goes through its own cluster's frame, the backbone sees the batch, and each feature alone goes through its own cluster's head.
float32, NCHW, batch norm as trained, one optimiser over every frame and head. Xu et al. 2024, arXiv:2404.11056.

In its favour: the images are normalised tensors in memory, there is no augmentation, no loader, no logging and no validation,
and the frozen weights ask for no gradient.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


class PlainLoop:
    """Clusters' frames and heads over one frozen backbone, trained together."""

    def __init__(self, backbone: "nn.Module", prototypes: "Tensor", side: int, frame_px: int, n_labels: int) -> None:
        """Args: prototypes: (k, d) of the k clusters."""
        import torch
        from torch import nn

        from lmeraser.learn.tuning import border

        self.backbone, self.prototypes = backbone.eval().requires_grad_(False), prototypes
        self.mask = border(side, frame_px)
        dim = prototypes.shape[1]
        self.frames = nn.ParameterList(nn.Parameter(torch.zeros(3, side, side)) for _ in prototypes)
        self.heads = nn.ModuleList(nn.Linear(dim, n_labels) for _ in prototypes)
        self.loss = nn.CrossEntropyLoss()
        self.optimiser = torch.optim.SGD([*self.frames.parameters(), *self.heads.parameters()], lr=0.01, momentum=0.9)

    def step(self, images: "Tensor", labels: "Tensor") -> float:
        """One batch: (b, 3, s, s) normalised float32, (b,) int64."""
        import torch

        with torch.no_grad():
            own = torch.cdist(self.backbone(images), self.prototypes).argmin(1)
        framed = [images[i : i + 1] + self.frames[int(own[i])] * self.mask for i in range(len(images))]
        features = self.backbone(torch.cat(framed))
        scores = torch.stack([self.heads[int(own[i])](features[i]) for i in range(len(images))])
        loss = self.loss(scores, labels)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())
