from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from scones.images.thumbnails import thumbnail_uri
from tests.support.picture_files import drawn, encoded, refused, turned_file


def shown(content: bytes, side: int = 96) -> Image.Image:
    uri = thumbnail_uri(content, side)
    assert uri is not None
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))


def test_thumbnails_are_drawn_anew() -> None:
    secret = PngInfo()
    secret.add_text("Comment", "<script>alert(1)</script>")
    uri = thumbnail_uri(encoded(drawn(300, 300), pnginfo=secret) + b"<script>")
    assert uri is not None
    assert b"script" not in base64.b64decode(uri.removeprefix("data:image/png;base64,"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_thumbnail_is_upright(orientation: int) -> None:
    picture = shown(turned_file(drawn(60, 90), orientation, "JPEG", quality=95))
    assert picture.size == (90, 60)
    assert np.abs(np.asarray(picture).astype(int) - drawn(60, 90)).mean() < 12


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content, _ in refused()])
def test_what_is_no_picture_is_not_shown(content: bytes) -> None:
    assert thumbnail_uri(content) is None
