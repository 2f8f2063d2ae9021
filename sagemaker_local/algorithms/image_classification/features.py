"""What the model sees of an image: scattering of its brightness and colours, and a dictionary of its patches.

Each feature has a mirror partner, so the features of the mirrored image are the same numbers in another order
(`Features.mirror`) and cost nothing.
"""

from typing import Any

import numpy as np

from sagemaker_local.algorithms.image_classification.images import CANVAS
from sagemaker_local.algorithms.image_classification.patches import Dictionary, PatchFeatures
from sagemaker_local.algorithms.image_classification.scattering import Array, Scattering

Canvases = np.ndarray[Any, np.dtype[np.uint8]]

# Brightness, and the two colour differences.
_OPPONENT = np.array([[1 / 3, 1 / 3, 1 / 3], [1 / 2, -1 / 2, 0], [1 / 4, 1 / 4, -1 / 2]], dtype=np.float32) / 255

# Small batches stay in the processor's cache: several times as quick as large ones.
_BATCH = 4


def planes(canvases: Canvases) -> Array:
    """Brightness and colour differences, float32 (images, side, side, 3), of uint8 canvases."""
    result: Array = canvases @ _OPPONENT.T
    return result


class Features:
    """Maps uint8 canvases (images, CANVAS, CANVAS, 3) to float32 (images, size)."""

    def __init__(self, dictionary: Dictionary) -> None:
        self._scattering = Scattering(CANVAS, scales=3, angles=6, grid=4, pad=4)
        self._patches = PatchFeatures(dictionary, CANVAS)
        blocks = [self._scattering.mirror()] * 3 + [self._patches.mirror()]
        starts = np.cumsum([0] + [len(block) for block in blocks])
        self.size = int(starts[-1])
        self.mirror = np.concatenate([block + start for block, start in zip(blocks, starts[:-1], strict=True)])

    def __call__(self, canvases: Canvases) -> Array:
        result = np.empty((len(canvases), self.size), dtype=np.float32)
        for start in range(0, len(canvases), _BATCH):
            seen = planes(canvases[start : start + _BATCH])
            count = len(seen)
            scattered = self._scattering(seen.transpose(0, 3, 1, 2).reshape(count * 3, CANVAS, CANVAS))
            chosen = result[start : start + count]
            chosen[:, : -self._patches.size] = scattered.reshape(count, -1)
            chosen[:, -self._patches.size :] = self._patches(seen)
        return result
