"""Directions in which the images differ most, found without labels on a sample of them."""

from typing import NamedTuple

import numpy as np
import scipy.linalg

from sagemaker_local.algorithms.image_classification.model import compress
from sagemaker_local.algorithms.image_classification.scattering import Array


class Points(NamedTuple):
    """Images as the two heads see them."""

    linear: Array  # (images, E): symmetric components
    kernel: Array  # (images, S + A): leading symmetric, then antisymmetric components


class Basis:
    """Standardisation and principal components of the features.

    Every image counts together with its mirror image, which splits the components into symmetric ones, equal for both,
    and antisymmetric ones, of opposite sign.

    Args:
        raw: features (images, D) of the sample.
        moved: features of more images, as later passes show them; they widen the symmetric components only.
        mirror: positions of the mirrored image's features.
        knee: bend of the logarithm, as a share of the feature's mean size.
        linear, kernel: most components for each head.
    """

    def __init__(self, raw: Array, moved: Array, mirror: Array, knee: float, linear: int, kernel: int) -> None:
        average = np.abs(raw).mean(axis=0)
        self.knee = (knee * (average + average[mirror]) / 2 + 1e-4).astype(np.float32)
        values = compress(raw, self.knee)
        mean = values.mean(axis=0)
        self.centre = ((mean + mean[mirror]) / 2).astype(np.float32)
        square = ((values - self.centre) ** 2).mean(axis=0)
        spread = np.sqrt((square + square[mirror]) / 2)
        self.scale = (spread + 1e-3 * spread.mean() + 1e-6).astype(np.float32)
        values = (values - self.centre) / self.scale
        more = np.concatenate([values, (compress(moved, self.knee) - self.centre) / self.scale])
        even, even_variances = _components((more + more[:, mirror]) / 2, linear)
        odd, odd_variances = _components((values - values[:, mirror]) / 2, kernel)
        # The kernel looks along the directions of most variance, whichever symmetry they have.
        order = np.argsort(-np.concatenate([even_variances, odd_variances]), kind="stable")[:kernel]
        self.symmetric = int((order < len(even_variances)).sum())
        self.even = even
        self.odd = odd[:, : len(order) - self.symmetric]

    @property
    def kernel_directions(self) -> Array:
        """(D, S + A)."""
        return np.concatenate([self.even[:, : self.symmetric], self.odd], axis=1)

    def project(self, raw: Array) -> Points:
        """Coordinates of images with raw features (images, D)."""
        values = (compress(raw, self.knee) - self.centre) / self.scale
        even = values @ self.even
        return Points(even, np.concatenate([even[:, : self.symmetric], values @ self.odd], axis=1))


def _components(values: Array, most: int) -> tuple[Array, Array]:
    """Principal directions (D, n) and variances, from the images' products with each other (images < D)."""
    count = min(most, len(values))
    gram = (values @ values.T).astype(np.float64)
    squares, vectors = scipy.linalg.eigh(
        gram, subset_by_index=[len(values) - count, len(values) - 1], check_finite=False
    )
    keep = squares > 1e-6 * max(squares[-1], 1e-12)
    squares, vectors = squares[keep][::-1], vectors[:, keep][:, ::-1]
    return values.T @ (vectors / np.sqrt(squares)).astype(np.float32), squares / len(values)
