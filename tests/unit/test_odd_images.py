"""Odd files: what `open_checked` takes is an array in every later stage; the right pixels come out of what viewers show."""

import struct
import zlib

import numpy as np
import pytest
from builders import MAX_PIXELS, encoded, image_params, pixels, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lmeraser.core.errors import ImageError
from lmeraser.data.images import decode, open_checked, to_array

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG's colour type
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
HEAD = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(depth: int, colour: int, lines: list[bytes], *before: bytes, width: int = 8, behind: bytes = b"") -> bytes:
    """A PNG of raw lines; `before` and `behind` are chunks on either side of the pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(lines), depth, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines)))
    return HEAD + head + b"".join(before) + data + behind + chunk(b"IEND", b"")


def opened(data: bytes) -> Image.Image | None:
    """None if it was refused, which must be in one line."""
    line, image = "one line", None
    try:
        image = open_checked(data, MAX_PIXELS)
    except ImageError as error:
        line = str(error)
    assert line.splitlines() == [line]
    return image


ANCILLARY = st.sampled_from(
    [b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"pHYs", b"gAMA", b"sRGB", b"cHRM", b"acTL", b"tIME", b"oDDs"]
)


@st.composite
def odd_pngs(draw: st.DrawFn) -> bytes:
    """Every colour type and depth; palettes, tRNS and other chunks of any length and content, before and behind the pixels."""
    colour = draw(st.sampled_from([0, 2, 3, 4, 6]))
    depth = draw(st.sampled_from(DEPTHS[colour]))
    line = draw(st.binary(min_size=CHANNELS[colour] * depth, max_size=CHANNELS[colour] * depth))  # of 8 pixels
    palette = [chunk(b"PLTE", draw(st.binary(max_size=800)))] if colour == 3 or draw(st.booleans()) else []
    clear = [chunk(b"tRNS", draw(st.binary(max_size=300)))] if draw(st.booleans()) else []
    others = st.lists(st.builds(chunk, ANCILLARY, st.binary(max_size=40)), max_size=2)
    return png_of(depth, colour, [line] * 4, *draw(others), *palette, *clear, behind=b"".join(draw(others)))


@settings(max_examples=400)
@given(odd_pngs())
def test_odd_png_is_refused_in_one_line_or_read_in_every_later_stage(data: bytes) -> None:
    image = opened(data)
    if image is None:
        return
    for channels in (1, 3):
        array = to_array(image, image_params(8, channels))
        assert array.shape == (8, 8, channels)
        assert np.array_equal(array, decode(data, image_params(8, channels)))


@settings(max_examples=200)
@given(
    st.sampled_from(["JPEG", "WEBP", "PNG"]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    st.data(),
)
def test_damaged_file_is_refused_in_one_line_or_read_in_every_later_stage(
    kind: str, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    exif = Image.Exif()
    exif[0x112] = data.draw(st.integers(0, 9))
    damaged = bytearray(encoded(Image.fromarray(pixels(1, 20, 30, 3)), kind, exif=exif.tobytes(), icc_profile=b"x" * 40))
    for place, value in changes:
        damaged[place % len(damaged)] = value
    image = opened(bytes(damaged))
    assert image is None or to_array(image, image_params(8, 1)).shape == (8, 8, 1)


@pytest.mark.parametrize(("depth", "level"), [(1, 1), (2, 2), (4, 8), (8, 136)])
def test_clear_level_of_shallow_grey_is_white_and_the_others_keep_their_shade(depth: int, level: int) -> None:
    per_byte = 8 // depth
    levels = list(range(8 * per_byte))
    values = [index % 2**depth for index in levels] if depth < 8 else [0, 1, 2, 136, 137, 200, 254, 255]
    packed = bytes(
        sum(value << (8 - depth * (place + 1)) for place, value in enumerate(values[first : first + per_byte]))
        for first in range(0, len(values), per_byte)
    )
    data = png_of(depth, 0, [packed] * len(values), chunk(b"tRNS", struct.pack(">H", level)), width=len(values))
    array = decode(data, image_params(len(values), 1))[0, :, 0].tolist()
    shades = [value * 255 // (2**depth - 1) for value in values]
    assert array == [255 if value == level else shade for value, shade in zip(values, shades, strict=True)]


def test_clear_level_of_16_bit_grey_is_white_and_its_neighbour_is_not() -> None:
    line = struct.pack(">8H", 0, 1000, 29999, 30000, 30001, 40000, 65534, 65535)
    array = decode(png_of(16, 0, [line] * 8, chunk(b"tRNS", struct.pack(">H", 30000))), image_params(8, 1))
    assert array[0, :, 0].tolist() == [0, 4, 117, 255, 117, 156, 255, 255]


def test_clear_colour_of_16_bit_rgb_is_white() -> None:
    line = struct.pack(">24H", *([256, 512, 768] * 4 + [5000, 512, 768] * 4))
    array = decode(png_of(16, 2, [line] * 8, chunk(b"tRNS", struct.pack(">3H", 256, 512, 768))), image_params(8, 3))
    assert array[0, 0].tolist() == [255, 255, 255]
    assert array[0, 7].tolist() == [19, 2, 3]


def plain_and(*before: bytes, behind: bytes = b"") -> tuple[bytes, bytes]:
    line = bytes(range(8))
    return png_of(8, 0, [line] * 8), png_of(8, 0, [line] * 8, *before, behind=behind)


UNSEEN = {
    "large profile": (chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(3_000_000))), b""),
    "large text": (chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 3_000_000)), b""),
    "large international text": (chunk(b"iTXt", b"C\0\1\0\0\0" + zlib.compress(b"a" * 3_000_000)), b""),
    "empty profile": (chunk(b"iCCP", b""), b""),
    "empty profile behind the pixels": (b"", chunk(b"iCCP", b"")),
    "profile with a wrong sum": (chunk(b"iCCP", b"icc\0\0x")[:-1] + b"\0", b""),
}


@pytest.mark.parametrize(("before", "behind"), UNSEEN.values(), ids=UNSEEN)
def test_profile_or_text_that_no_pixel_depends_on_never_refuses_an_image(before: bytes, behind: bytes) -> None:
    plain, odd = plain_and(before, behind=behind)
    assert np.array_equal(decode(odd, image_params(8, 1)), decode(plain, image_params(8, 1)))


def test_orientation_counts_also_where_a_profile_is_damaged() -> None:
    exif = Image.Exif()
    exif[0x112] = 3  # upside down
    plain, odd = plain_and(chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")), chunk(b"iCCP", b""))
    turned = decode(plain, image_params(8, 1))[::-1, ::-1]
    assert np.array_equal(decode(odd, image_params(8, 1)), turned)


def test_more_transparencies_than_a_palette_has_colours_say_nothing() -> None:
    line = bytes([0, 1] * 4)
    palette = chunk(b"PLTE", bytes([10, 20, 30, 200, 210, 220]))
    odd = png_of(8, 3, [line] * 8, palette, chunk(b"tRNS", bytes(300)))
    assert np.array_equal(decode(odd, image_params(8, 3)), decode(png_of(8, 3, [line] * 8, palette), image_params(8, 3)))


def test_damaged_pixels_are_refused_whatever_else_is_odd() -> None:
    plain, _ = plain_and()
    broken = plain.replace(b"IDAT", b"iCCP")
    refused(ImageError, lambda: open_checked(broken, MAX_PIXELS))
    refused(ImageError, lambda: open_checked(plain[:40], MAX_PIXELS))


def test_param_is_the_one_limit_of_pixels() -> None:
    side = 13_400  # above the 178,956,970 pixels that Pillow takes by itself
    data = png_of(1, 0, [], width=side)
    tall = data[:20] + struct.pack(">I", side) + data[24:]
    tall = tall[:29] + struct.pack(">I", zlib.crc32(tall[12:29])) + tall[33:]
    assert "more than image.max_pixels" in refused(ImageError, lambda: open_checked(tall, side * side - 1))
    assert "cannot be decoded" in refused(ImageError, lambda: open_checked(tall, side * side)), "its pixels are missing"
