"""Image files to arrays, and the checks that keep a hostile or broken file out."""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lmeraser.core.errors import ImageError
from lmeraser.core.params import ImageParams

FORMATS = ("PNG", "JPEG", "WEBP")
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def open_checked(data: bytes, max_pixels: int) -> Image.Image:
    """Decode a PNG, JPEG or WebP completely.

    Args:
        max_pixels: larger images are refused by their header, before any pixel is decoded.
    Raises: ImageError naming what is wrong, without the image's name or content.
    """
    if not data:
        raise ImageError("the image is empty (0 bytes); replace the file or drop its row")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns of what is refused below
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(
                    f"the image has {width} x {height} pixels, more than image.max_pixels {max_pixels}; "
                    "shrink it or raise the limit"
                )
            image.load()
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"the image is too large to decode, the limit is {max_pixels} pixels; shrink it") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(
            f"the image cannot be decoded ({type(error).__name__}); expected a whole PNG, JPEG or WebP file"
        ) from error
    return image


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says; damaged EXIF (the pixels are whole) says nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow's parser raises many kinds on hostile bytes
        return image


def to_array(image: Image.Image, params: ImageParams) -> NDArray[np.uint8]:
    """An image as the network sees it: upright, opaque, square.

    EXIF orientation is applied, transparency is laid over white, the longer side is cropped about the centre. With `crop` below 1
    the square is made larger by it and its border cut off, as timm does it (`timm.data.create_transform`).

    Returns: (size, size, channels) uint8; channels 1 is luminance (ITU-R BT.601), 3 is RGB.
    """
    size, channels = params.size, params.channels
    upright = _upright(image)
    if upright.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        # Pillow would clip 16-bit grey to 255 instead of scaling it.
        scaled = np.asarray(upright, dtype=np.float64) / 257.0
        upright = Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))
    if "transparency" in upright.info or upright.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        layer = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    flat = upright.convert("L" if channels == 1 else "RGB")
    whole = int(size / params.crop)
    square = ImageOps.fit(flat, (whole, whole), method=RESAMPLING[params.interpolation])
    pixels = np.asarray(square, dtype=np.uint8).reshape(whole, whole, channels)
    first = round((whole - size) / 2)  # timm's rounding
    return pixels[first : first + size, first : first + size]


def decode(data: bytes, params: ImageParams) -> NDArray[np.uint8]:
    """`open_checked` and `to_array` in one: (size, size, channels) uint8."""
    return to_array(open_checked(data, params.max_pixels), params)


def stored_png(pixels: NDArray[np.uint8]) -> bytes:
    """(h, w) or (h, w, 3) uint8 as a PNG. Stored, not deflated: the bytes do not depend on the zlib at hand."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG", compress_level=0)
    return stream.getvalue()
