"""Stored images to arrays, as the network sees them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.params import Params
from lmeraser.core.progress import track
from lmeraser.data.images import decode


def decode_all(images: Sequence[bytes], params: Params, name: str) -> NDArray[np.uint8]:
    """(n, s, s, c) uint8."""
    size, channels = params.image.size, params.image.channels
    pixels = np.empty((len(images), size, size, channels), dtype=np.uint8)
    for row, data in enumerate(track(images, len(images), name, "image")):
        pixels[row] = decode(data, params.image)
    return pixels
