"""What one core does of the work that grows with records and bytes: checking, decoding and hashing images of some 100 KB."""

import hashlib
import io
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from lmeraser.core.params import ImageParams
from lmeraser.data.images import decode, open_checked

IMAGE_BYTES, SIDE = 100_000, 224  # of a stored image, about; px of the network's input
LEAST_S = 2.0  # that each is repeated for
BLOCK = 64_000_000  # bytes that are hashed at once


def photograph(seed: int = 0) -> bytes:
    """A JPEG of about IMAGE_BYTES: noise of several scales, as photographs have it."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((512, 640, 3))
    for scale in (1, 4, 16, 64):
        coarse = rng.normal(size=(-(-512 // scale), -(-640 // scale), 3)) * scale**0.8
        pixels += np.kron(coarse, np.ones((scale, scale, 1)))[:512, :640]
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255
    image = Image.fromarray(pixels.astype(np.uint8))
    best = b""
    for quality in range(30, 96, 5):
        stream = io.BytesIO()
        image.save(stream, format="JPEG", quality=quality)
        best = min((best or stream.getvalue(), stream.getvalue()), key=lambda made: abs(len(made) - IMAGE_BYTES))
    return best


def seconds_of(act: Callable[[], object]) -> float:
    """Of one call, on this core."""
    act()
    count, start = 0, time.process_time()
    while time.process_time() - start < LEAST_S:
        act()
        count += 1
    return (time.process_time() - start) / count


def measure() -> dict[str, float]:
    """Seconds an image, and bytes a second."""
    image = photograph()
    params = ImageParams(size=SIDE, channels=3, interpolation="bicubic", crop=0.9, max_pixels=10_000_000)
    block = np.random.default_rng(0).bytes(BLOCK)
    return {
        "image_bytes": float(len(image)),
        "check_s": seconds_of(lambda: (hashlib.sha256(image).digest(), open_checked(image, params.max_pixels))),
        "decode_s": seconds_of(lambda: decode(image, params)),
        "md5_bytes_s": BLOCK / seconds_of(lambda: hashlib.md5(block, usedforsecurity=False).digest()),
    }
