"""Photographs as they look when something drifted: out of focus, taken at night, or noisy."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = ("blur", "night", "noise")


def transform_png(data: bytes, kind: str, strength: float, seed: int = 0) -> bytes:
    """Return an encoded image changed by ``kind``, as PNG; the same input gives the same bytes.

    Args:
        data: PNG or JPEG bytes.
        kind: one of ``KINDS``.
        strength: from 0 (unchanged) to 1 (hardly to be recognised).
        seed: of the noise.
    """
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
        pixels = np.asarray(image.convert("RGB"))
    buffer = io.BytesIO()
    Image.fromarray(transform(pixels, kind, strength, seed)).save(buffer, "PNG")
    return buffer.getvalue()


def transform(pixels: NDArray[np.uint8], kind: str, strength: float, seed: int = 0) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 pixels changed by ``kind``.

    Raises:
        ValueError: unknown kind, or a strength outside 0 to 1.
    """
    if kind not in KINDS:
        raise ValueError(f"Unknown drift {kind!r}: one of {', '.join(KINDS)}")
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength must be from 0 to 1, got {strength}")
    return {"blur": _blur, "night": _night, "noise": _noise}[kind](pixels, strength, seed)


def _blur(pixels: NDArray[np.uint8], strength: float, seed: int) -> NDArray[np.uint8]:
    """Gaussian blur; the radius grows with the image, so that strength means the same at every size."""
    import numpy as np
    from PIL import Image, ImageFilter

    radius = strength * 0.08 * min(pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _night(pixels: NDArray[np.uint8], strength: float, seed: int) -> NDArray[np.uint8]:
    """Less light, less contrast in the shadows, and a blue cast."""
    import numpy as np

    light = (pixels / 255.0) ** (1.0 + 1.2 * strength) * (1.0 - 0.75 * strength)
    cast = 1.0 + strength * np.array([-0.25, -0.1, 0.25])
    return np.clip(np.rint(light * cast * 255.0), 0, 255).astype(np.uint8)


def _noise(pixels: NDArray[np.uint8], strength: float, seed: int) -> NDArray[np.uint8]:
    """Sensor noise: Gaussian, up to a standard deviation of 64 levels."""
    import numpy as np

    noise = np.random.default_rng(seed).normal(0.0, 64.0 * strength, pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)
