"""Ways in which people change an image that they put under another name."""

import io
from collections.abc import Callable

from PIL import Image, ImageEnhance, ImageOps

from lmeraser.data.images import open_checked

MAX_PIXELS = 50_000_000


def _saved(image: Image.Image, kind: str = "PNG", **options: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def _resized(image: Image.Image, scale: float) -> Image.Image:
    size = (max(8, round(image.width * scale)), max(8, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _cropped(image: Image.Image, keep: float, left: float, top: float) -> Image.Image:
    """Args: keep: share of each side; left, top: which share of what is cut is cut there."""
    width, height = round(image.width * keep), round(image.height * keep)
    x, y = round((image.width - width) * left), round((image.height - height) * top)
    return image.crop((x, y, x + width, y + height))


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG, quality 50": lambda image: _saved(image, "JPEG", quality=50),
    "WebP, quality 60": lambda image: _saved(image, "WEBP", quality=60),
    "resized to 50 %": lambda image: _saved(_resized(image, 0.5)),
    "resized to 150 %, JPEG 75": lambda image: _saved(_resized(image, 1.5), "JPEG", quality=75),
    "mirrored, JPEG 75": lambda image: _saved(ImageOps.mirror(image), "JPEG", quality=75),
    "cropped to 90 %": lambda image: _saved(_cropped(image, 0.9, 0.5, 0.5)),
    "cropped to 75 %, a corner": lambda image: _saved(_cropped(image, 0.75, 0.0, 1.0)),
    "brighter by a quarter": lambda image: _saved(ImageEnhance.Brightness(image).enhance(1.25)),
    "turned by 5 degrees": lambda image: _saved(image.rotate(5, Image.Resampling.BICUBIC)),
}


def copied(data: bytes, kind: str) -> bytes:
    """A changed copy of an image."""
    return COPIES[kind](open_checked(data, MAX_PIXELS))
