"""Images as callers have them to the network's input: arrays, tensors, Pillow's images, or the bytes of image files."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmeraser.core.errors import ImageError
from lmeraser.core.params import ImageParams
from lmeraser.data.images import decode, to_array

EXPECTED = "expected (n, height, width) or (n, height, width, 1 or 3) uint8, or a list of images"


def to_pixels(images: Any, params: ImageParams) -> NDArray[np.uint8]:
    """(n, s, s, c) as the network sees them, whatever their size and colour mode.

    Args: images: (n, h, w[, 1 or 3]) uint8 array or tensor; or a sequence of such images (h, w[, 1 or 3]), of Pillow's, and of
        the bytes of PNG, JPEG or WebP files.
    Raises: ImageError by an image's place, never by its content.
    """
    if hasattr(images, "detach"):  # a tensor, without importing torch for whoever has none
        images = images.detach().cpu().numpy()
    if isinstance(images, np.ndarray):
        return _of_array(images, params)
    if isinstance(images, str | bytes | bytearray | Image.Image) or not isinstance(images, Sequence):
        raise ImageError(f"one {type(images).__name__} is no batch of images; {EXPECTED}")
    pixels = np.empty((len(images), params.size, params.size, params.channels), dtype=np.uint8)
    for row, image in enumerate(images):
        try:
            pixels[row] = _of_image(image, params)
        except ImageError as error:
            raise ImageError(f"image {row + 1} of {len(images)}: {error}") from error
    return pixels


def _of_array(images: NDArray[Any], params: ImageParams) -> NDArray[np.uint8]:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ImageError(f"an array of {images.ndim} dimensions and type {images.dtype} is no batch of images; {EXPECTED}")
    shown = images if images.ndim == 4 else images[..., None]
    if shown.shape[1:] == (params.size, params.size, params.channels) and params.crop == 1:
        return np.ascontiguousarray(shown)  # as it is: resizing to the same size moves no pixel
    _check_shape(shown.shape[1:], params)
    pixels = np.empty((len(shown), params.size, params.size, params.channels), dtype=np.uint8)
    for row, image in enumerate(shown):
        pixels[row] = to_array(_drawn(image), params)
    return pixels


def _check_shape(shape: tuple[int, ...], params: ImageParams) -> None:
    """Args: shape: (h, w, c)."""
    height, width, channels = shape
    if channels not in (1, 3) or not height or not width:
        raise ImageError(f"images of {height} x {width} pixels and {channels} channels were given; {EXPECTED}")
    if height * width > params.max_pixels:
        raise ImageError(f"an image has {width} x {height} pixels, more than image.max_pixels {params.max_pixels}; shrink it")


def _drawn(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[-1] == 1 else image))


def _of_image(image: Any, params: ImageParams) -> NDArray[np.uint8]:
    """(s, s, c)."""
    if isinstance(image, bytes | bytearray | memoryview):
        return decode(bytes(image), params)
    if isinstance(image, Image.Image):
        if image.width * image.height > params.max_pixels:
            raise ImageError(f"it has {image.width} x {image.height} pixels, more than image.max_pixels {params.max_pixels}")
        return _of_pillow(image, params)
    array = image.detach().cpu().numpy() if hasattr(image, "detach") else image
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise ImageError("it is neither uint8 (height, width[, 1 or 3]), nor Pillow's image, nor the bytes of an image file")
    pixels: NDArray[np.uint8] = _of_array(array[None], params)[0]
    return pixels


def _of_pillow(image: Image.Image, params: ImageParams) -> NDArray[np.uint8]:
    """By way of a file, so that transparency, depth and palettes are treated as everywhere else."""
    import io

    stream = io.BytesIO()
    try:
        image.save(stream, format="PNG", compress_level=0)
    except (OSError, ValueError) as error:  # a mode that no PNG has
        raise ImageError(f"Pillow's mode {image.mode[:8]!r} is not supported; convert it to RGB") from error
    return decode(stream.getvalue(), params)
