"""Directions in which the images differ most, found without labels on a sample of them."""

import numpy as np

from sagemaker_local.algorithms.image_classification.model import Scaling
from sagemaker_local.algorithms.image_classification.scattering import Array


class Basis:
    """Standardisation and principal components of the features, each image together with its mirror image.

    Args:
        raw: features (images, 2, H) of the sample.
        moved: features of more images, as later passes show them; they widen the components only.
        knee: bend of the logarithm, as a share of the feature's mean size.
        most: number of components at most.
    """

    def __init__(self, raw: Array, moved: Array, knee: float, most: int) -> None:
        self.scaling = Scaling.of(raw, knee)
        values = np.concatenate([self.scaling(raw), self.scaling(moved)])
        # From the images' products with each other (images < H); numpy's solver, as scipy's would hold the interpreter.
        squares, vectors = np.linalg.eigh((values @ values.T).astype(np.float64))
        squares, vectors = squares[-most:], vectors[:, -most:]
        keep = squares > 1e-6 * max(squares[-1], 1e-12)
        self.directions: Array = values.T @ (vectors[:, keep] / np.sqrt(squares[keep])).astype(np.float32)  # (H, n)

    def project(self, raw: Array) -> Array:
        """Coordinates (images, n) of images with raw features (images, 2, H)."""
        result: Array = self.scaling(raw) @ self.directions
        return result
