"""Directions in which the images differ most, found without labels on a sample of them."""

from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np

from sagemaker_local.algorithms.image_classification.model import Scaling
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
        knee: bend of the logarithm, as a share of the feature's mean size.
        linear, kernel: most components for each head.
        pool: threads, for the symmetric and the antisymmetric components at a time.
    """

    def __init__(self, raw: Array, moved: Array, knee: float, linear: int, kernel: int, pool: Executor) -> None:
        self.scaling = Scaling.of(raw, knee)
        even, odd = self.scaling.parts(raw)
        more = np.concatenate([even, self.scaling.parts(moved)[0]])
        found = pool.map(_components, (more, odd), (linear, kernel))
        (self.even, even_variances), (odd_directions, odd_variances) = found
        # The kernel looks along the directions of most variance, whichever symmetry they have.
        order = np.argsort(-np.concatenate([even_variances, odd_variances]), kind="stable")[:kernel]
        self.symmetric = int((order < len(even_variances)).sum())
        self.odd = odd_directions[:, : len(order) - self.symmetric]

    def project(self, raw: Array) -> Points:
        """Coordinates of images with raw features (images, D)."""
        even, odd = self.scaling.parts(raw)
        points = even @ self.even
        return Points(points, np.concatenate([points[:, : self.symmetric], odd @ self.odd], axis=1))


def _components(values: Array, most: int) -> tuple[Array, Array]:
    """Principal directions (H, n) and variances, from the images' products with each other (images < H).

    numpy's solver lets the other thread work meanwhile; scipy's holds the interpreter.
    """
    squares, vectors = np.linalg.eigh((values @ values.T).astype(np.float64))
    squares, vectors = squares[-most:], vectors[:, -most:]
    keep = squares > 1e-6 * max(squares[-1], 1e-12)
    squares, vectors = squares[keep][::-1], vectors[:, keep][:, ::-1]
    return values.T @ (vectors / np.sqrt(squares)).astype(np.float32), squares / len(values)
