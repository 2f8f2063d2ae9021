"""What the linear head sees of an image: wavelet scattering of its brightness and colours.

Each feature has a mirror partner: the mirrored image has the same numbers in another order.
"""

from typing import Any

import numpy as np

from sagemaker_local.algorithms.image_classification.images import CANVAS
from sagemaker_local.algorithms.image_classification.scattering import Array, Scattering

Canvases = np.ndarray[Any, np.dtype[np.uint8]]

# Brightness, and the two colour differences.
_OPPONENT = np.array([[1 / 3, 1 / 3, 1 / 3], [1 / 2, -1 / 2, 0], [1 / 4, 1 / 4, -1 / 2]], dtype=np.float32) / 255

# Small batches stay in the processor's cache: several times as quick as large ones.
_BATCH = 4


class Features:
    """Maps uint8 canvases (images, CANVAS, CANVAS, 3) to float32 (images, 2, size).

    The first of each pair is a feature of the image, the second the same feature of the mirrored image.
    """

    def __init__(self) -> None:
        self._scattering = Scattering(CANVAS, scales=3, angles=6, grid=4, pad=4)
        mirror = self._scattering.mirror()
        left = np.flatnonzero(np.arange(len(mirror)) < mirror)  # no feature is its own partner: columns turn round
        pairs = np.stack([left, mirror[left]])
        self._order = np.concatenate([pairs + plane * len(mirror) for plane in range(len(_OPPONENT))], axis=1)
        self.size = self._order.shape[1]

    def __call__(self, canvases: Canvases) -> Array:
        result = np.empty((len(canvases), 2, self.size), dtype=np.float32)
        for start in range(0, len(canvases), _BATCH):
            planes = (canvases[start : start + _BATCH] @ _OPPONENT.T).transpose(0, 3, 1, 2)
            count = len(planes)
            scattered = self._scattering(planes.reshape(count * 3, CANVAS, CANVAS)).reshape(count, -1)
            scattered.take(self._order, axis=1, out=result[start : start + count], mode="clip")
        return result
