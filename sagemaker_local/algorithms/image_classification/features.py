"""What the model sees of an image: scattering of its brightness and colours, and a dictionary of its patches.

Each feature has a mirror partner: the mirrored image has the same numbers in another order. They are sorted so that
this order is the simplest there is: the second half of the numbers before the first.
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
    """Maps uint8 canvases (images, CANVAS, CANVAS, 3) to float32 (images, size).

    With h = size / 2, feature n + h of an image is feature n of the mirrored image.
    """

    def __init__(self, dictionary: Dictionary) -> None:
        self._scattering = Scattering(CANVAS, scales=3, angles=6, grid=4, pad=4)
        self._patches = PatchFeatures(dictionary, CANVAS)
        blocks = [self._scattering.mirror()] * 3 + [self._patches.mirror()]
        starts = np.cumsum([0] + [len(block) for block in blocks])
        self.size = int(starts[-1])
        mirror = np.concatenate([block + start for block, start in zip(blocks, starts[:-1], strict=True)])
        left = np.flatnonzero(np.arange(self.size) < mirror)  # no feature is its own partner: grids halve, atoms pair
        self._order = np.concatenate([left, mirror[left]])

    def __call__(self, canvases: Canvases) -> Array:
        result = np.empty((len(canvases), self.size), dtype=np.float32)
        for start in range(0, len(canvases), _BATCH):
            seen = planes(canvases[start : start + _BATCH])
            count = len(seen)
            scattered = self._scattering(seen.transpose(0, 3, 1, 2).reshape(count * 3, CANVAS, CANVAS))
            computed = np.concatenate([scattered.reshape(count, -1), self._patches(seen)], axis=1)
            computed.take(self._order, axis=1, out=result[start : start + count], mode="clip")
        return result
