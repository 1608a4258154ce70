"""Shifts and flips that are a function of a record's id and the epoch, and of nothing else."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.digest import number_from


def draws(ids: Sequence[str], epoch: int, seed: int) -> NDArray[np.uint64]:
    """(n,) uniform 64-bit numbers, one a record: a function of (seed, id, epoch)."""
    return np.array([number_from(seed, identity, epoch) for identity in ids], dtype=np.uint64)


def epoch_order(drawn: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The order in which an epoch visits records given in order of id: ties (never seen) go by id."""
    return np.argsort(drawn, kind="stable")


def augment(pixels: NDArray[np.uint8], drawn: NDArray[np.uint64], shift_px: int, flip: bool) -> NDArray[np.uint8]:
    """Shift each image by up to `shift_px` each way (edges repeated) and flip half of them.

    Args:
        pixels: (n, s, s, c) uint8.
        drawn: (n,) from `draws`, in the same order.
    """
    if not shift_px and not flip:
        return pixels
    span = np.uint64(2 * shift_px + 1)
    down, across = drawn % span, (drawn // span) % span
    mirrored = ((drawn >> np.uint64(40)) & np.uint64(1)).astype(bool) & flip
    size = pixels.shape[1]
    edge = ((0, 0), (shift_px, shift_px), (shift_px, shift_px), (0, 0))
    padded = np.pad(pixels, edge, mode="edge") if shift_px else pixels
    moved = np.empty_like(pixels)
    for row in range(len(pixels)):
        top, left = int(down[row]), int(across[row])
        window = padded[row, top : top + size, left : left + size]
        moved[row] = window[:, ::-1] if mirrored[row] else window
    return moved
