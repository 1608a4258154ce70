"""A cluster's prompt as an image that people can look at."""

import io

import numpy as np
from numpy.typing import NDArray

from lmeraser.report.facts import Prompt


def prompt_of(slot: str, frame: NDArray[np.float32]) -> Prompt:
    """Mid-grey where nothing is added, brighter and darker up to the strongest change.

    Args: frame: (c, s, s), of 1 or 3 channels, added to the normalised image.
    """
    from PIL import Image

    strongest = float(np.abs(frame).max(initial=0.0))
    shares = frame.astype(np.float64) / strongest if strongest else np.zeros(frame.shape)
    levels = np.rint(127.5 + 127.5 * shares).astype(np.uint8)
    image = Image.fromarray(levels[0]) if len(levels) == 1 else Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0)))
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=9)
    return Prompt(slot, stream.getvalue(), int(frame.shape[-1]), strongest)
