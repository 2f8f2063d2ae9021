"""What the model sees of an image: scattering of its brightness and of its colours, compressed by a logarithm.

Each feature has a mirror partner, so the features of the mirrored image are the same numbers in another order
(`Features.mirror`) and cost nothing.
"""

from typing import Any

import numpy as np

from sagemaker_local.algorithms.image_classification.images import CANVAS
from sagemaker_local.algorithms.image_classification.scattering import Array, Scattering

# Brightness, and the two colour differences.
_OPPONENT = np.array([[1 / 3, 1 / 3, 1 / 3], [1 / 2, -1 / 2, 0], [1 / 4, 1 / 4, -1 / 2]], dtype=np.float32) / 255

# Small batches stay in the processor's cache: four times as quick as large ones.
_BATCH = 8


class Features:
    """Maps uint8 canvases (images, CANVAS, CANVAS, 3) to float32 (images, size)."""

    def __init__(self) -> None:
        self._brightness = Scattering(CANVAS, scales=3, angles=8, grid=4, pad=4, second_order=True)
        self._colour = Scattering(CANVAS, scales=3, angles=8, grid=4, pad=4, second_order=False)
        self._fine = Scattering(CANVAS, scales=2, angles=8, grid=8, pad=4, second_order=False)
        blocks = [self._brightness.mirror(), self._colour.mirror(), self._colour.mirror(), self._fine.mirror()]
        starts = np.cumsum([0] + [len(block) for block in blocks])
        self.size = int(starts[-1])
        self.mirror = np.concatenate([block + start for block, start in zip(blocks, starts[:-1], strict=True)])

    def __call__(self, canvases: np.ndarray[Any, np.dtype[np.uint8]]) -> Array:
        result = np.empty((len(canvases), self.size), dtype=np.float32)
        for start in range(0, len(canvases), _BATCH):
            planes = (canvases[start : start + _BATCH] @ _OPPONENT.T).transpose(3, 0, 1, 2)
            result[start : start + _BATCH] = np.concatenate(
                [
                    self._brightness(planes[0]),
                    self._colour(planes[1]),
                    self._colour(planes[2]),
                    self._fine(planes[0]),
                ],
                axis=1,
            )
        return result
