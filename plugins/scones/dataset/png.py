"""Encode images as PNG, quickly, and decode whatever people send, safely.

The encoder writes exactly what the algorithm reads: 8-bit RGB, no alpha, no interlace, no metadata. Rows are
filtered for the whole batch at once in numpy (filter type Up), then each image is one call of zlib: several times
faster than one imaging library call per image, and the same bytes for the same pixels.

PNG: https://www.w3.org/TR/png-3/ (signature, IHDR, IDAT, IEND; CRC-32 over type and data).
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator

import numpy as np

from scones.dataset.errors import ImageDecodeError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IEND = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_FILTER_UP = 2
# On filtered photographs of this size the higher levels cost time and save half a percent.
_ZLIB_LEVEL = 3
_BATCH = 1024
MAX_IMAGE_BYTES = 10 * 1024 * 1024
MAX_IMAGE_PIXELS = 50_000_000


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def encode_pngs(images: np.ndarray, level: int = _ZLIB_LEVEL) -> Iterator[bytes]:
    """PNG files of uint8 RGB images (N, H, W, 3), in order. Works through batches, so memory does not grow with N.

    Raises ValueError for another shape or type.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:]:
        raise ValueError(f"encode_pngs takes uint8 (N, H, W, 3), not {images.dtype} {images.shape}")
    _, height, width, _ = images.shape
    header = PNG_SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    start_crc = zlib.crc32(b"IDAT")
    for first in range(0, len(images), _BATCH):
        rows = images[first : first + _BATCH].reshape(-1, height, width * 3)
        filtered = np.empty((len(rows), height, width * 3 + 1), dtype=np.uint8)
        filtered[:, :, 0] = _FILTER_UP
        filtered[:, 0, 1:] = rows[:, 0]
        np.subtract(rows[:, 1:], rows[:, :-1], out=filtered[:, 1:, 1:])
        for scanlines in filtered:
            packed = zlib.compress(scanlines, level)
            crc = zlib.crc32(packed, start_crc)
            yield b"".join((header, struct.pack(">I", len(packed)), b"IDAT", packed, struct.pack(">I", crc), _IEND))


def encode_png(image: np.ndarray, level: int = 6) -> bytes:
    """PNG file of one uint8 RGB image (H, W, 3)."""
    return next(encode_pngs(image[None], level))


def decode_rgb(data: bytes, name: str = "image") -> np.ndarray:
    """Pixels of an image file (PNG or JPEG; RGB, RGBA, grey or palette) as uint8 RGB (H, W, 3).

    Raises ImageDecodeError for anything else, anything truncated, and anything that unpacks beyond `MAX_IMAGE_PIXELS`.
    """
    from PIL import Image

    if len(data) > MAX_IMAGE_BYTES:
        raise ImageDecodeError(f"{name}: {len(data):,} bytes is more than an image may have ({MAX_IMAGE_BYTES:,}).")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                if image.width * image.height > MAX_IMAGE_PIXELS:
                    raise ImageDecodeError(
                        f"{name}: {image.width} x {image.height} pixels is more than an image may have."
                    )
                return np.asarray(image.convert("RGB"), dtype=np.uint8)
    except ImageDecodeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageDecodeError(f"{name}: the image unpacks to far more pixels than its file suggests.") from error
    except (OSError, ValueError, SyntaxError, struct.error, zlib.error, MemoryError) as error:
        raise ImageDecodeError(
            f"{name}: not a readable PNG or JPEG ({type(error).__name__}: {error!s:.120})."
        ) from error


def resize_rgb(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """``image`` (H, W, 3) uint8 at the dataset's size: its middle square is kept, then scaled down with area
    weights.
    """
    from PIL import Image

    if image.shape[:2] == (height, width):
        return image
    source_height, source_width = image.shape[:2]
    scale = min(source_height / height, source_width / width)
    crop_height, crop_width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (source_height - crop_height) // 2, (source_width - crop_width) // 2
    cropped = Image.fromarray(image[top : top + crop_height, left : left + crop_width])
    return np.asarray(cropped.resize((width, height), Image.Resampling.LANCZOS), dtype=np.uint8)
