"""Images: every kind that people have becomes the same array; what is broken, hostile or foreign is refused by one line."""

import resource
import struct
import time
import zlib

import numpy as np
import pytest
from builders import MAX_PIXELS, encoded, image_params, pixels, png, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lmeraser.core.errors import ImageError
from lmeraser.data.images import decode, open_checked, to_array

ORIENTATION = 0x112


def rgb(height: int = 20, width: int = 30, seed: int = 0) -> Image.Image:
    return Image.fromarray(pixels(seed, height, width, 3))


def with_orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return exif.tobytes()


def png_header(width: int, height: int) -> bytes:
    """The header of a PNG and nothing that it promises."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def decoded(data: bytes, channels: int = 3, size: int = 8) -> np.ndarray:
    return decode(data, image_params(size, channels))


KINDS = {
    "png": encoded(rgb()),
    "jpeg": encoded(rgb(), "JPEG"),
    "webp": encoded(rgb(), "WEBP"),
    "progressive jpeg": encoded(rgb(), "JPEG", progressive=True),
    "cmyk jpeg": encoded(rgb().convert("CMYK"), "JPEG"),
    "grey jpeg": encoded(rgb().convert("L"), "JPEG"),
    "grey": encoded(rgb().convert("L")),
    "black and white": encoded(rgb().convert("1")),
    "palette": encoded(rgb().convert("P")),
    "palette with transparency": encoded(rgb().convert("P"), transparency=3),
    "rgb with a transparent colour": encoded(rgb(), transparency=(1, 2, 3)),
    "grey with a transparent level": encoded(rgb().convert("L"), transparency=7),
    "rgba": encoded(rgb().convert("RGBA")),
    "rgba webp": encoded(rgb().convert("RGBA"), "WEBP"),
    "grey with alpha": encoded(rgb().convert("LA")),
    "16-bit grey": encoded(Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)),
    "tall and thin": encoded(rgb(500, 1)),
    "one pixel": encoded(rgb(1, 1)),
    "wide": encoded(rgb(3, 400)),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_has_the_networks_shape(kind: str, channels: int) -> None:
    array = decoded(KINDS[kind], channels)
    assert array.shape == (8, 8, channels)
    assert array.dtype == np.uint8


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_one_colour_stays_that_colour_in_every_mode(mode: str) -> None:
    image = Image.new("RGB", (9, 7), (120, 120, 120)).convert(mode, palette=Image.Palette.ADAPTIVE)
    assert set(decoded(encoded(image)).flatten().tolist()) == {120}


def test_transparency_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    grey_clear = Image.new("LA", (8, 8), (0, 0))
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    for data in (encoded(clear), encoded(grey_clear), encoded(palette, transparency=0), encoded(clear, "WEBP", lossless=True)):
        assert decoded(data).min() == 255


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    ramp = np.repeat(np.linspace(0, 65535, 8).astype(np.uint16)[None, :], 8, axis=0)
    array = decoded(encoded(Image.fromarray(ramp)), 1)[0, :, 0]
    assert np.array_equal(array, np.rint(ramp[0] / 257).astype(np.uint8))


def test_photo_that_the_camera_turned_is_upright() -> None:
    upright = pixels(3, 12, 12, 3)
    turned = Image.fromarray(np.rot90(upright, 1))  # orientation 6: turn clockwise to see it
    image = decoded(encoded(turned, "PNG", exif=with_orientation(6)), size=12)
    assert np.array_equal(image, upright)
    assert not np.array_equal(decoded(encoded(turned), size=12), upright)


def test_longer_side_is_cropped_about_the_centre() -> None:
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = pixels(4, 8, 8, 3)
    assert np.array_equal(decoded(encoded(Image.fromarray(wide))), wide[:, 8:16])


def test_image_of_the_networks_size_is_kept_pixel_by_pixel() -> None:
    image = pixels(5, 8, 8, 1)
    assert np.array_equal(decoded(encoded(Image.fromarray(image)), 1)[..., 0], image)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_image_is_refused(kind: str, share: float) -> None:
    whole = encoded(rgb(60, 60), kind)
    refused(ImageError, lambda: open_checked(whole[: int(len(whole) * share)], MAX_PIXELS))


def test_zero_bytes_are_refused() -> None:
    assert "0 bytes" in refused(ImageError, lambda: open_checked(b"", MAX_PIXELS))


@pytest.mark.parametrize(
    "data", [b"\0", b"CANARY-anna-7f3 is no image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"]
)
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    refused(ImageError, lambda: open_checked(data, MAX_PIXELS))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO", "PPM"])
def test_other_formats_are_refused(kind: str) -> None:
    data = encoded(rgb(32, 32), kind)
    assert "PNG, JPEG or WebP" in refused(ImageError, lambda: open_checked(data, MAX_PIXELS))


def test_huge_image_is_refused_by_its_header_quickly_and_without_memory() -> None:
    data = png_header(60_000, 60_000)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    refused(ImageError, lambda: open_checked(data, 50_000_000))
    assert time.monotonic() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB; decoded it would be 440 MB


def test_image_just_over_the_limit_is_refused_and_at_the_limit_is_read() -> None:
    data = encoded(rgb(10, 10))
    assert open_checked(data, 100).size == (10, 10)
    assert "10 x 10 pixels, more than image.max_pixels 99" in refused(ImageError, lambda: open_checked(data, 99))


def test_limit_is_judged_before_pixels_are_decoded() -> None:
    # Its pixels are missing: only a reader of the header can say that it is too large.
    assert "4000 x 4000" in refused(ImageError, lambda: open_checked(png_header(4000, 4000), MAX_PIXELS))


def test_decoding_is_a_function_of_the_bytes() -> None:
    data = KINDS["jpeg"]
    assert np.array_equal(decoded(data), to_array(open_checked(data, MAX_PIXELS), image_params(8, 3)))


@settings(max_examples=100)
@given(st.integers(8, 400), st.integers(0, 255), st.sampled_from(["png", "jpeg", "webp"]))
def test_flipped_byte_is_refused_or_read_but_never_crashes(place: int, value: int, kind: str) -> None:
    data = bytearray(KINDS[kind])
    data[place % len(data)] = value
    try:
        array = decoded(bytes(data))
    except ImageError:
        return
    assert array.shape == (8, 8, 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0\0M\0*\0\0\0\x08\0\1", b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\2\0\0\0\2\xff\xff\xff\xff", b"x"]
)
def test_photo_with_damaged_exif_is_read_as_it_lies(kind: str, exif: bytes) -> None:
    data = encoded(rgb(), kind, exif=exif)
    assert np.array_equal(decoded(data), decoded(encoded(rgb(), kind)))


def test_two_images_are_not_one() -> None:
    assert png(1) != png(2)
    assert png(1) == png(1)


@pytest.mark.parametrize(("size", "crop"), [(224, 0.9), (32, 0.875), (24, 1.0), (33, 0.95)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_square_images_come_as_timm_prepares_them(size: int, crop: float, interpolation: str) -> None:
    from timm.data.transforms_factory import create_transform

    prepare = create_transform((3, size, size), is_training=False, interpolation=interpolation, crop_pct=crop, normalize=False)
    for side in (32, 57):
        image = Image.fromarray(pixels(side, side, side, 3))
        expected = np.asarray(prepare(image)).transpose(1, 2, 0)
        assert np.array_equal(decode(encoded(image), image_params(size, 3, interpolation, crop)), expected)


def test_image_that_is_not_square_is_cropped_to_its_middle_and_its_border_left_out() -> None:
    bars = np.zeros((40, 120, 3), dtype=np.uint8)
    bars[:, 44:76] = 200  # the middle 80 % of the middle square
    image = encoded(Image.fromarray(bars))
    assert decode(image, image_params(16, 3, crop=1.0))[:, [0, -1]].max() == 0
    assert decode(image, image_params(16, 3, crop=0.6)).min() == 200
