"""PNG files others can read, from pixels."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scones.dataset import png as images
from scones.dataset.png import encode_pngs


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_pillow_reads_the_same_pixels(count: int, height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3)).astype(np.uint8)
    for png, expected in zip(encode_pngs(pixels), pixels, strict=True):
        image = opened(png)
        assert (image.mode, image.size) == ("RGB", (width, height))
        np.testing.assert_array_equal(np.asarray(image), expected)


def test_batches_join_seamlessly(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (10, 8, 8, 3)).astype(np.uint8)
    whole = list(encode_pngs(pixels))
    monkeypatch.setattr(images, "_BATCH", 3)
    assert list(encode_pngs(pixels)) == whole


def test_chunks_and_checksums() -> None:
    png = next(encode_pngs(np.zeros((1, 2, 3, 3), dtype=np.uint8)))
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, kinds = 8, []
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        body = png[at + 4 : at + 8 + length]
        assert struct.unpack_from(">I", png, at + 8 + length)[0] == zlib.crc32(body)
        kinds.append(body[:4])
        at += 12 + length
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]


def test_views_that_are_not_contiguous() -> None:
    source = np.random.default_rng(2).integers(0, 256, (3, 3, 32, 32)).astype(np.uint8)
    pixels = source.transpose(0, 2, 3, 1)
    for png, expected in zip(encode_pngs(pixels), pixels, strict=True):
        np.testing.assert_array_equal(np.asarray(opened(png)), expected)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 2, 2, 4), np.uint8),
        np.zeros((1, 2, 2, 3)),
        np.zeros((2, 2, 3), np.uint8),
        np.zeros((1, 0, 2, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="takes uint8"):
        list(encode_pngs(wrong))
