"""Image files to arrays, and the checks that keep a hostile or broken file out.

`open_checked` alone decides what is an image: it does everything that can fail on odd bytes, so that what `split` accepted is
read in every later stage.
"""

import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lmeraser.core.errors import ImageError
from lmeraser.core.params import ImageParams

# image.max_pixels is the one limit, judged by the header: Pillow's own would refuse what the param allows.
Image.MAX_IMAGE_PIXELS = None

FORMATS = ("PNG", "JPEG", "WEBP")
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")  # how a file of FORMATS begins
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
PNG_HEAD = SIGNATURES[0]
GREY, COLOUR, PALETTE = 0, 2, 3  # PNG's colour types (PNG specification, third edition, 11.2.1)
UNSEEN_CHUNKS = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")  # colour profile and texts: no pixel depends on them here
DEEP_GREY = ("I", "I;16", "I;16B", "I;16L", "F")


def looks_like_image(head: bytes) -> bool:
    """Whether a file that begins so (12 bytes are enough) says that it is a PNG, JPEG or WebP."""
    return head.startswith(SIGNATURES) and (not head.startswith(b"RIFF") or head[8:12] == b"WEBP")


def open_checked(data: bytes, max_pixels: int) -> Image.Image:
    """Decode a PNG, JPEG or WebP completely: upright by its EXIF, opaque (transparency lies over white), 8 bits a channel.

    Args:
        max_pixels: larger images are refused by their header, before any pixel is decoded.
    Returns: an image that converts to `L` and `RGB` without fail.
    Raises: ImageError naming what is wrong, without the image's name or content.
    """
    if not data:
        raise ImageError("the image is empty (0 bytes); replace the file or drop its row")
    try:
        return _decode(data, max_pixels)
    except ImageError:
        raise
    except Exception as error:  # Pillow raises many kinds on odd bytes
        plain = _without_unseen(data)
        if plain is not None:
            try:
                return _decode(plain, max_pixels)
            except Exception:  # noqa: S110  (the first error says more)
                pass
        raise ImageError(
            f"the image cannot be decoded ({type(error).__name__}); expected a whole PNG, JPEG or WebP file"
        ) from error


def _decode(data: bytes, max_pixels: int) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns of what is refused here
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height > max_pixels:
            raise ImageError(
                f"the image has {width} x {height} pixels, more than image.max_pixels {max_pixels}; shrink it or raise the limit"
            )
        image.load()
        whole = _opaque(_upright(image), *_depth(data))
        if whole.mode not in ("L", "RGB"):
            for mode in ("L", "RGB"):  # whichever the network takes later
                whole.convert(mode)
    return whole


def _depth(data: bytes) -> tuple[int, int | None]:
    """Bits a sample and PNG's colour type; 8 and None for other formats."""
    return (data[24], data[25]) if data.startswith(PNG_HEAD) else (8, None)


def _without_unseen(data: bytes) -> bytes | None:
    """A PNG without the chunks that no pixel depends on; None for other formats, or if its chunks are not whole.

    A damaged or huge colour profile or text does not make an image unreadable. Nor does a tRNS with more entries than the
    palette has: libpng ignores it (`png_handle_tRNS`), and so do browsers.
    """
    if not data.startswith(PNG_HEAD):
        return None
    kept, place, entries = [PNG_HEAD], len(PNG_HEAD), 0
    while place + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        chunk = data[place : place + 12 + length]
        if kind == b"PLTE":
            entries = length // 3
        surplus = kind == b"tRNS" and _depth(data)[1] == PALETTE and length > entries
        if kind not in UNSEEN_CHUNKS and not surplus:
            kept.append(chunk)
        place += len(chunk)
        if kind == b"IEND":
            return b"".join(kept)
    return None


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says; damaged EXIF (the pixels are whole) says nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow's parser raises many kinds on hostile bytes
        return image


def _opaque(image: Image.Image, depth: int, colour: int | None) -> Image.Image:
    """8 bits a channel, transparency laid over white. Args: depth, colour: of the PNG, as its header says."""
    clear = image.info.get("transparency")
    if image.mode in DEEP_GREY:
        grey = _eight_bits(np.asarray(image))
        if clear is not None:
            grey[np.asarray(image) == clear] = 255
        return Image.fromarray(grey)
    if clear is not None and colour == GREY and depth in (2, 4):
        # Pillow spreads the pixels over 0 to 255, but leaves the clear one as it stands in the file.
        image.info["transparency"] = (clear & (2**depth - 1)) * (255 // (2**depth - 1))
    if clear is not None and colour == COLOUR and depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in clear)  # as Pillow cuts the pixels
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image


def _eight_bits(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Deep grey scaled to 0 to 255: Pillow would clip 16-bit grey instead."""

    def scaled(values: NDArray[np.generic]) -> NDArray[np.uint8]:
        return np.clip(np.rint(values.astype(np.float64) / 257.0), 0, 255).astype(np.uint8)

    if grey.dtype.itemsize == 2 and grey.dtype.kind == "u":  # by a table: a large photo in float64 takes gigabytes
        shades: NDArray[np.uint8] = scaled(np.arange(2**16))[grey]
        return shades
    return scaled(grey)


def to_array(image: Image.Image, params: ImageParams) -> NDArray[np.uint8]:
    """An image of `open_checked` as the network sees it: square.

    The longer side is cropped about the centre. With `crop` below 1 the square is made larger by it and its border cut off, as
    timm does it (`timm.data.create_transform`).

    Returns: (size, size, channels) uint8; channels 1 is luminance (ITU-R BT.601), 3 is RGB.
    """
    size, channels = params.size, params.channels
    flat = image.convert("L" if channels == 1 else "RGB")
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
