"""Decoding untrusted images: every mode the contract names, and every way a file can be hostile."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sagemaker_local.algorithms.image_classification.errors import AlgorithmError
from sagemaker_local.algorithms.image_classification.images import CANVAS, Geometry, decode_image

SQUARE = Geometry(32, 32)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(height: int = 32, width: int = 32) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1).astype(np.uint8)


def test_a_canvas_sized_png_keeps_every_pixel() -> None:
    assert np.array_equal(decode_image(encode(Image.fromarray(picture())), SQUARE, "a.png"), picture())


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P", "1"])
def test_other_modes_look_as_their_rgb(mode: str) -> None:
    image = Image.fromarray(picture()).convert(mode)
    decoded = decode_image(encode(image), SQUARE, "a.png")
    assert decoded.shape == (CANVAS, CANVAS, 3)
    assert np.array_equal(decoded, np.asarray(image.convert("RGB")))


def test_transparency_is_dropped_not_blended() -> None:
    pixels = np.dstack([picture(), np.zeros((32, 32), np.uint8)])
    assert np.array_equal(decode_image(encode(Image.fromarray(pixels)), SQUARE, "a.png"), picture())


def test_a_palette_with_transparency_is_its_colours() -> None:
    image = Image.fromarray(picture()).convert("P")
    image.info["transparency"] = 0
    decoded = decode_image(encode(image, transparency=0), SQUARE, "a.png")
    assert np.array_equal(decoded, np.asarray(Image.fromarray(picture()).convert("P").convert("RGB")))


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = (np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64).astype(np.uint16)
    decoded = decode_image(encode(Image.fromarray(grey)), SQUARE, "a.png")
    assert np.abs(decoded[..., 0].astype(float) - grey / 257).max() <= 0.51
    assert decoded.max() > 240


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_of_any_size_fills_the_canvas(mode: str) -> None:
    image = Image.fromarray(picture(300, 200)).convert(mode)
    decoded = decode_image(encode(image, "JPEG", quality=95), SQUARE, "a.jpg").astype(int)
    wanted = np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BOX)).astype(int)
    assert np.abs(decoded - wanted).mean() < 6


def test_resize_takes_the_middle_of_the_shorter_side_scaled() -> None:
    geometry = Geometry(32, 32, resize=64)
    assert geometry.box(200, 100) == (75.0, 25.0, 125.0, 75.0)
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[25:75, 75:125] = 255
    decoded = decode_image(encode(Image.fromarray(pixels)), geometry, "a.png")
    assert decoded[2:-2, 2:-2].min() == 255


def test_a_small_image_shape_limits_the_detail() -> None:
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = 255
    decoded = decode_image(encode(Image.fromarray(stripes)), Geometry(8, 8), "a.png").astype(int)
    assert decoded.max() - decoded.min() < 60


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 100_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


PNG = encode(Image.fromarray(picture(64, 64)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a.png is empty"),
        (b"not an image", "a.png is not a PNG or JPEG image"),
        (b"GIF89a" + bytes(100), "a.png is not a PNG or JPEG image"),
        (encode(Image.fromarray(picture()), "BMP"), "a.png is not a PNG or JPEG image"),
        (PNG[:100], "a.png is truncated or corrupt"),
        (PNG[:20], "a.png is truncated or corrupt"),
        (PNG[:60] + bytes(40) + PNG[100:], "a.png is truncated or corrupt"),
        (encode(Image.fromarray(picture()), "JPEG")[:400], "a.png is truncated or corrupt"),
        (bomb(30_000), "a.png is too large: at most"),
        (bomb(8_000), "a.png is 8000 x 8000 pixels; at most"),
        (bomb(6_000), "a.png is truncated or corrupt"),
    ],
)
def test_a_hostile_file_is_refused_by_name(content: bytes, said: str) -> None:
    with pytest.raises(AlgorithmError, match=said):
        decode_image(content, SQUARE, "a.png")
