"""A network's blocks as features: one pass gives pooled outputs of several depths beside the network's own row.

Early blocks keep what a classifier of ImageNet throws away, and a linear head over several depths is ahead of one over the last
layer (Evci et al. 2022, ICML, arXiv:2201.03529). A map is averaged over the cells of a grid, so that where something is counts
too; of a transformer each block gives its class token as well.
"""

import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from lmeraser.core.errors import ParamsError
from lmeraser.core.params import Features

Cells = tuple[list[slice], list[slice]]  # rows and columns of a map, in spans

TOLERANCE = 1e-4  # between the two ways to a network's own row, as a share of its largest value


class Depths(nn.Module):
    """(n, c, s, s) normalised images to (n, d): pooled outputs of some blocks, then the network's own row.

    Attributes: widths: how many of the d features each depth has, in their order; the network's own are the last.
    """

    def __init__(self, network: nn.Module, depths: Sequence[int], cells: Sequence[Cells]) -> None:
        """Args: cells: of each depth's map; they are constants, else batch norms could not be folded (a trace has no sizes)."""
        super().__init__()
        self.network, self.depths, self.cells = network, list(depths), list(cells)
        self.options = _options(network)
        self.widths: tuple[int, ...] = ()

    def rows(self, images: Tensor) -> list[Tensor]:
        """One (n, width) tensor a depth."""
        network = cast("Any", self.network)
        last, outputs = network.forward_intermediates(images, indices=self.depths, **self.options)
        rows = [pooled(output, cells) for output, cells in zip(outputs, self.cells, strict=True)]
        return [*rows, network.forward_head(last)]

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat(self.rows(images), 1)


def _options(network: nn.Module) -> dict[str, bool]:
    given = inspect.signature(cast("Any", network).forward_intermediates).parameters
    return {"return_prefix_tokens": True} if "return_prefix_tokens" in given else {}


def cells_of(output: Tensor | tuple[Tensor, Tensor], grid: int) -> Cells:
    """The cells of a block's map: at most `grid` a side."""
    maps = output[0] if isinstance(output, tuple) else output
    return _spans(maps.shape[2], grid), _spans(maps.shape[3], grid)


def pooled(output: Tensor | tuple[Tensor, Tensor], cells: Cells) -> Tensor:
    """A block's output as one row an image: the class token, if there is one, then the mean of each cell of its map.

    Slices and means, whose gradient is deterministic on every device (that of adaptive pooling is not on a GPU).

    Args: output: a (n, c, h, w) map, or a transformer's map with its (n, t, c) prefix tokens, the class token first.
    """
    tokens, maps = (output[1], output[0]) if isinstance(output, tuple) else (None, output)
    means = [maps[:, :, rows, columns].mean((2, 3)) for rows in cells[0] for columns in cells[1]]
    if tokens is not None and tokens.shape[1]:
        means.insert(0, tokens[:, 0])
    return torch.cat(means, 1)


def _spans(side: int, grid: int) -> list[slice]:
    """A side of a map in at most `grid` spans that cover it; neighbours share a place where it does not divide."""
    count = min(grid, side)
    return [slice(place * side // count, -(-(place + 1) * side // count)) for place in range(count)]


def with_depths(network: nn.Module, features: Features, trial: Tensor, name: str) -> nn.Module:
    """The network as it is, or with the depths that the params ask for.

    Args: network: in evaluation mode, without a classifier; trial: (2, c, s, s) images; name: timm's.
    Raises: ParamsError if the network has not those blocks, or gives no outputs of them.
    """
    if not features.depths:
        return network
    if not hasattr(network, "forward_intermediates"):
        raise ParamsError(
            f"params.yaml: {name} gives no outputs of its blocks (timm's forward_intermediates); set features.depths to [], or "
            "take another pretrain.model"
        )
    with torch.no_grad():
        outputs = cast("Any", network).forward_intermediates(trial, intermediates_only=True)
        blocks = len(outputs)
        unknown = [depth for depth in features.depths if depth >= blocks]
        if unknown:
            raise ParamsError(
                f"params.yaml: features.depths names block {unknown[0]}, but {name} has 0 to {blocks - 1}; "
                f"the nearest is {blocks - 1}"
            )
        cells = [cells_of(outputs[depth], features.grid) for depth in features.depths]
        deep = Depths(network, features.depths, cells).eval()
        rows = deep.rows(trial)
        own = network(trial)
    reach = float(own.abs().max())
    if rows[-1].shape != own.shape or float((rows[-1] - own).abs().max()) > TOLERANCE * reach:
        raise ParamsError(
            f"params.yaml: {name} gives another row where its blocks are asked for; set features.depths to [], or take another "
            "pretrain.model"
        )
    deep.widths = tuple(row.shape[1] for row in rows)
    return deep
