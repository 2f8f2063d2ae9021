"""Image files of every kind the product takes, with what a person sees in each, and files that are damaged."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
_ORIENTATION = 0x0112


def drawn(height: int = 32, width: int = 32) -> Pixels:
    """A picture (height, width, 3) without any symmetry."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x * 3 + y) % 256], axis=-1).astype(np.uint8)


def encoded(image: Image.Image | Pixels, kind: str = "PNG", **options: Any) -> bytes:
    """The file of an image, as Pillow writes it."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def stored_turned(pixels: Pixels, orientation: int) -> Pixels:
    """The pixels as a camera stores them that notes this EXIF orientation (1 to 8) beside them."""
    turned = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: pixels.transpose(1, 0, 2)[::-1],
        7: pixels.transpose(1, 0, 2)[::-1, ::-1],
        8: pixels.transpose(1, 0, 2)[:, ::-1],
    }
    return np.ascontiguousarray(turned[orientation])


def turned_file(pixels: Pixels, orientation: int, kind: str = "PNG", **options: Any) -> bytes:
    """A file stored turned, with its EXIF note."""
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return encoded(stored_turned(pixels, orientation), kind, exif=exif, **options)


def sixteen_bit_rgb(pixels: Pixels) -> bytes:
    """A PNG of 16 bits a sample, each value times 257; Pillow writes none."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).astype(">u2").tobytes() for row in pixels)
    return _png(width, height, 16, 2, zlib.compress(rows))


def lossless() -> Iterator[tuple[str, bytes, Pixels]]:
    """Name, file and the RGB pixels (32 x 32) a person sees in it."""
    pixels = drawn()
    picture = Image.fromarray(pixels)
    grey = picture.convert("L")
    as_grey = np.asarray(grey.convert("RGB"))
    yield "RGB", encoded(picture), pixels
    yield "RGBA", encoded(np.dstack([pixels, np.full((32, 32), 9, np.uint8)])), pixels
    yield "RGB 16 bits", sixteen_bit_rgb(pixels), pixels
    yield "L", encoded(grey), as_grey
    yield "L with a transparent value", encoded(grey, transparency=7), as_grey
    yield "LA", encoded(grey.convert("LA")), as_grey
    yield "L 16 bits", encoded(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)), as_grey
    palette = picture.convert("P")
    yield "P", encoded(palette), np.asarray(palette.convert("RGB"))
    yield "P with transparency", encoded(palette, transparency=bytes(range(200))), np.asarray(palette.convert("RGB"))
    for orientation in range(1, 9):
        yield f"turned {orientation}", turned_file(pixels, orientation), pixels
    yield "a note that is none", encoded(picture, exif=b"Exif\0\0nonsense"), pixels
    yield "1 bit", encoded(picture.convert("1")), np.asarray(picture.convert("1").convert("RGB"))


def lossy() -> Iterator[tuple[str, bytes, Pixels]]:
    """Name, JPEG file and about the RGB pixels a person sees in it, of several sizes."""
    for height, width in ((32, 32), (300, 200), (90, 160), (700, 1300)):
        pixels = drawn(height, width)
        picture = Image.fromarray(pixels)
        yield f"{height} x {width}", encoded(picture, "JPEG", quality=95), pixels
        yield f"{height} x {width} progressive", encoded(picture, "JPEG", quality=95, progressive=True), pixels
        for orientation in (3, 6, 7):
            file = turned_file(pixels, orientation, "JPEG", quality=95)
            yield f"{height} x {width} turned {orientation}", file, pixels
        for mode in ("L", "CMYK"):
            converted = picture.convert(mode)
            yield (
                f"{height} x {width} {mode}",
                encoded(converted, "JPEG", quality=95),
                np.asarray(converted.convert("RGB")),
            )


def refused() -> Iterator[tuple[str, bytes, str]]:
    """Name, file, and words of why it is refused."""
    noise = np.random.default_rng(0).integers(-30, 30, (64, 64, 3))
    pixels = np.clip(drawn(64, 64) + noise, 0, 255).astype(np.uint8)
    png, jpeg = encoded(pixels), encoded(pixels, "JPEG")
    yield "nothing", b"", "is empty"
    yield "text", b"not an image", "is not a PNG or JPEG image"
    yield "GIF", b"GIF89a" + bytes(100), "is not a PNG or JPEG image"
    yield "BMP", encoded(pixels, "BMP"), "is not a PNG or JPEG image"
    yield "PNG cut", png[:1000], "is truncated or corrupt"
    yield "PNG cut in its head", png[:20], "is truncated or corrupt"
    yield "PNG overwritten", png[:60] + bytes(40) + png[100:], "is truncated or corrupt"
    yield "JPEG cut", jpeg[: len(jpeg) // 2], "is truncated or corrupt"
    yield "JPEG cut and closed", jpeg[: len(jpeg) // 2] + b"\xff\xd9", "is damaged"
    yield "JPEG closed within", jpeg[:1500] + b"\xff\xd9" + jpeg[1502:], "is damaged"
    yield "PNG of 900 megapixels", png_of(30_000, 30_000), "is too large"
    yield "PNG of 64 megapixels", png_of(8_000, 8_000), "is 8000 x 8000 pixels"
    yield "PNG of one row", png_of(25_000_000, 1), "is 25000000 x 1 pixels"
    yield "PNG without its pixels", png_of(6_000, 6_000), "is truncated or corrupt"


def png_of(width: int, height: int) -> bytes:
    """A small PNG that claims this size."""
    return _png(width, height, 8, 2, zlib.compress(b"\0" * 100_000, 9))


def _png(width: int, height: int, depth: int, colour: int, packed: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
