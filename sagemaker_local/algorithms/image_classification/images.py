"""From untrusted image bytes to the small RGB canvas that the features look at."""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from sagemaker_local.algorithms.image_classification.errors import AlgorithmError

CANVAS = 32
MOST_PIXELS = 40_000_000
MOST_BYTES = 64 * 1024 * 1024

_BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


@dataclass(frozen=True)
class Geometry:
    """How an image is brought to the canvas.

    With `resize`, the shorter side is scaled to it and the middle `height` x `width` is taken (as the built-in
    algorithm does); without, the whole image is scaled to `height` x `width`. Either way at most CANVAS x CANVAS
    pixels of that are kept: the features see no finer detail.
    """

    height: int
    width: int
    resize: int | None = None

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of a `width` x `height` image that is kept: left, upper, right, lower in its own pixels."""
        if self.resize is None:
            return 0.0, 0.0, float(width), float(height)
        scale = min(width, height) / self.resize
        kept_width, kept_height = min(self.width * scale, width), min(self.height * scale, height)
        left, upper = (width - kept_width) / 2, (height - kept_height) / 2
        return left, upper, left + kept_width, upper + kept_height


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits a sample: convert("RGB") would clip at 255
        samples = np.asarray(image, dtype=np.float64)
        return Image.fromarray(np.clip(samples / 257.0 + 0.5, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")  # an alpha channel is dropped, not blended


def decode_image(content: bytes, geometry: Geometry, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Decode PNG or JPEG bytes to a uint8 canvas (CANVAS, CANVAS, 3).

    RGB, RGBA, grey, palette, CMYK, 1- and 16-bit images are taken. `name` is what an error calls the image.

    Raises:
        AlgorithmError: not a PNG or JPEG, truncated or corrupt, or larger than MOST_BYTES or MOST_PIXELS.
    """
    if not content:
        raise AlgorithmError(f"{name} is empty; expected a PNG or JPEG image")
    if len(content) > MOST_BYTES:
        raise AlgorithmError(f"{name} has {len(content)} bytes; at most {MOST_BYTES} are read")
    image: Image.Image
    try:
        image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise AlgorithmError(f"{name} is {width} x {height} pixels; at most {MOST_PIXELS} pixels are decoded")
        if image.format == "JPEG" and min(width, height) >= 4 * CANVAS:
            image.draft("RGB", (2 * CANVAS, 2 * CANVAS))
        image.load()
        image = _to_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise AlgorithmError(f"{name} is too large: at most {MOST_PIXELS} pixels are decoded") from error
    except AlgorithmError:
        raise
    except _BROKEN as error:
        if not content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8")):
            raise AlgorithmError(f"{name} is not a PNG or JPEG image") from error
        raise AlgorithmError(f"{name} is truncated or corrupt: {error}") from error
    return _to_canvas(image, geometry)


def _to_canvas(image: Image.Image, geometry: Geometry) -> np.ndarray[Any, np.dtype[np.uint8]]:
    size = (min(geometry.width, CANVAS), min(geometry.height, CANVAS))
    box = geometry.box(*image.size)
    if image.size != size or box != (0.0, 0.0, float(size[0]), float(size[1])):
        image = image.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
    if size != (CANVAS, CANVAS):
        image = image.resize((CANVAS, CANVAS), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8)
