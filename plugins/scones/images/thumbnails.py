"""Pictures to show: small, and drawn anew from their pixels, as the files they come from may be anyone's."""

from __future__ import annotations

import base64
import io

from PIL import Image

from scones.images.pictures import PictureError, upright


def thumbnail_uri(content: bytes, side: int = 96) -> str | None:
    """A ``data:`` URI of a PNG or JPEG, at most ``side`` pixels wide and high; None when it can't be decoded."""
    try:
        image, _ = upright(content, side)
    except PictureError:
        return None
    image.thumbnail((side, side))
    clean = Image.frombytes("RGB", image.size, image.tobytes())
    buffer = io.BytesIO()
    clean.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
