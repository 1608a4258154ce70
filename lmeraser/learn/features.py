"""Features of many images by the frozen backbone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.params import Params
from lmeraser.data.decoding import decode_all
from lmeraser.learn.backbone import Backbone

DECODED = 64  # batches that are held decoded at once


def features_of(images: Sequence[bytes], backbone: Backbone, params: Params, name: str) -> NDArray[np.float32]:
    """Features of images that may be too many to hold decoded: (n, d), the bits of all at once (constant batch shape)."""
    rows = [np.zeros((0, backbone.dim), dtype=np.float32)]
    step = DECODED * params.embed.batch
    for start in range(0, len(images), step):
        pixels = decode_all(images[start : start + step], params, name)
        rows.append(backbone.features(pixels, params.embed.batch))
    return np.concatenate(rows)
