"""Encode many images as PNG, quickly.

The encoder writes exactly what the algorithm reads: 8-bit RGB, no alpha, no interlace, no metadata. Rows are
filtered for the whole batch at once in numpy (filter type Up), then each image is one call of zlib: several times
faster than one imaging library call per image, and the same bytes for the same pixels.

PNG: https://www.w3.org/TR/png-3/ (signature, IHDR, IDAT, IEND; CRC-32 over type and data).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IEND = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_FILTER_UP = 2
# On filtered photographs of this size the higher levels cost time and save half a percent.
_ZLIB_LEVEL = 3
_BATCH = 1024


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def encode_pngs(images: np.ndarray) -> Iterator[bytes]:
    """PNG files of uint8 RGB images (N, H, W, 3), in order. Works through batches, so memory does not grow with N.

    Raises:
        ValueError: they have another shape or type.
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
            packed = zlib.compress(scanlines, _ZLIB_LEVEL)
            crc = zlib.crc32(packed, start_crc)
            yield b"".join((header, struct.pack(">I", len(packed)), b"IDAT", packed, struct.pack(">I", crc), _IEND))
