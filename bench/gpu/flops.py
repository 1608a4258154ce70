"""Floating-point operations of a vision transformer, counted as products alone: a multiplication and an addition are two.

Chowdhery et al. 2022 (PaLM, arXiv:2204.02311, appendix B) divide what a model must compute by the time and the peak rate: the
model's FLOP utilisation. Nothing is counted that an implementation computes again (flash attention does, backward), no norm, no
softmax, no bias. The counts per layer are those of Kaplan et al. 2020 (arXiv:2001.08361, table 1).
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A vision transformer's sizes. tokens: with the class token; patch: px."""

    tokens: int
    patches: int
    width: int
    depth: int
    heads: int
    hidden: int
    patch: int
    channels: int

    @classmethod
    def of(cls, model: Any) -> "Shape":
        """Args: model: a VisionTransformer of timm."""
        block, stem = model.blocks[0], model.patch_embed
        return cls(
            tokens=model.pos_embed.shape[1] + (model.num_prefix_tokens if model.no_embed_class else 0),
            patches=stem.num_patches,
            width=model.embed_dim,
            depth=len(model.blocks),
            heads=block.attn.num_heads,
            hidden=block.mlp.fc1.out_features,
            patch=stem.patch_size[0],
            channels=stem.proj.in_channels,
        )

    @property
    def linear(self) -> int:
        """Forward, an image: queries, keys, values, projection (4 d²) and the two layers behind (2 d h), a token and layer."""
        return 2 * self.depth * self.tokens * (4 * self.width**2 + 2 * self.width * self.hidden)

    @property
    def attention(self) -> int:
        """Forward, an image: scores and weighted values, n² d each, each layer."""
        return 2 * self.depth * 2 * self.tokens**2 * self.width

    @property
    def stem(self) -> int:
        """Forward, an image: the patches' convolution."""
        return 2 * self.patches * self.channels * self.patch**2 * self.width

    @property
    def forward(self) -> int:
        return self.linear + self.attention + self.stem

    @property
    def step(self) -> int:
        """A training step, an image: forward, and backward to the first convolution's output.

        No weight wants a gradient, so a linear layer's backward pass is one product, not two; attention has no weights, so its is
        two for each of the two. Behind the stem a frame's gradient is one image's work (lmeraser/learn/stem.py): not counted.
        """
        return 2 * self.linear + 3 * self.attention + self.stem
