"""Decoding untrusted images: every kind of file the contract names, and every way a file can be hostile.

The algorithm and the plugins each have a copy of the decoder; every test here is held by both.
"""

import inspect
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sagemaker_local.algorithms.image_classification import pictures as algorithms_copy
from sagemaker_local.algorithms.image_classification.errors import AlgorithmError
from sagemaker_local.algorithms.image_classification.images import CANVAS, canvas, decode_image
from sagemaker_local.algorithms.image_classification.pictures import Geometry, PictureError
from scones.images import pictures as plugins_copy
from tests.support.picture_files import drawn, encoded, lossless, lossy, refused

SQUARE = Geometry(32, 32)


def by_name(cases: object) -> list[object]:
    return [pytest.param(*values, id=name) for name, *values in cases]  # type: ignore[attr-defined]


def test_training_and_all_else_see_an_image_with_the_same_code() -> None:
    assert inspect.getsource(algorithms_copy) == inspect.getsource(plugins_copy)


@pytest.mark.parametrize(("content", "seen"), by_name(lossless()))
@pytest.mark.parametrize("copy", [algorithms_copy, plugins_copy], ids=["algorithm", "plugins"])
def test_a_lossless_file_is_what_a_person_sees(copy: ModuleType, content: bytes, seen: np.ndarray) -> None:
    assert np.array_equal(copy.decode(content, copy.Geometry(32, 32)), seen)


@pytest.mark.parametrize(("content", "seen"), by_name(lossy()))
def test_a_jpeg_of_any_size_is_about_what_a_person_sees(content: bytes, seen: np.ndarray) -> None:
    decoded = algorithms_copy.decode(content, SQUARE)
    wanted = np.asarray(Image.fromarray(seen).resize((32, 32), Image.Resampling.BOX)).astype(int)
    assert np.abs(decoded - wanted).mean() < 12
    assert np.array_equal(plugins_copy.decode(content, plugins_copy.Geometry(32, 32)), decoded)


@pytest.mark.parametrize(("content", "said"), by_name(refused()))
def test_a_hostile_file_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(PictureError, match=said):
        algorithms_copy.decode(content, SQUARE)
    with pytest.raises(AlgorithmError, match=f"a.png {said}"):
        decode_image(content, SQUARE, "a.png")


def test_what_has_more_bytes_than_are_read_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(PictureError, match="at most 20971520 are read"):
        algorithms_copy.decode(bytes(20 * 1024 * 1024 + 1), SQUARE)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_a_picture_that_really_ends_grey_is_whole(options: dict[str, object]) -> None:
    """libjpeg puts the same grey where data are missing."""
    pixels = drawn(64, 64)
    pixels[32:] = 128
    for image in (Image.fromarray(pixels), Image.new("L", (64, 64), 128)):
        decoded = algorithms_copy.decode(encoded(image, "JPEG", **options) + b"notes behind", SQUARE)
        assert (decoded[20:] == 128).all()


def test_the_true_size_is_that_of_the_upright_picture() -> None:
    content = {name: file for name, file, _ in lossy()}["700 x 1300 turned 6"]
    image, size = algorithms_copy.upright(content, 32)
    assert size == (1300, 700)
    assert 64 <= min(image.size) < 700  # decoded at a fraction


def test_resize_takes_the_middle_of_the_shorter_side_scaled() -> None:
    geometry = Geometry(32, 32, resize=64)
    assert geometry.box(200, 100) == (75.0, 25.0, 125.0, 75.0)
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[25:75, 75:125] = 255
    assert algorithms_copy.decode(encoded(pixels), geometry)[2:-2, 2:-2].min() == 255


def test_without_resize_a_wide_picture_is_seen_whole() -> None:
    pixels = np.zeros((90, 160, 3), np.uint8)
    pixels[:, :20] = 255
    decoded = algorithms_copy.decode(encoded(pixels), SQUARE)
    assert decoded[:, :4].min() > 200
    assert decoded[:, 5:].max() == 0


def test_a_small_image_shape_limits_the_detail() -> None:
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = 255
    seen = canvas(decode_image(encoded(stripes), Geometry(8, 8), "a.png")).astype(int)
    assert seen.shape == (CANVAS, CANVAS, 3)
    assert seen.max() - seen.min() < 60


def test_the_short_way_is_taken_by_plain_files_and_gives_what_the_long_way_gives() -> None:
    for name, content, _ in lossless():
        short = plugins_copy._plain_png(content, (32, 32))
        assert (short is not None) == (name in ("RGB", "RGBA", "L")), name
        if short is not None:
            assert np.array_equal(short, np.asarray(plugins_copy.upright(content, 32)[0]))
    for name, content, _ in refused():
        assert plugins_copy._plain_png(content, (64, 64)) is None, name


@given(st.integers(0, 4000), st.binary(max_size=3))
@settings(max_examples=200, deadline=None)
def test_a_damaged_file_is_seen_alike_on_the_short_way_or_refused(position: int, change: bytes) -> None:
    content = bytearray(encoded(drawn()))
    position %= len(content)
    content[position : position + len(change)] = change
    short = plugins_copy._plain_png(bytes(content), (32, 32))
    if short is not None:
        assert np.array_equal(short, np.asarray(plugins_copy.upright(bytes(content), 32)[0]))
