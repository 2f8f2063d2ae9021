"""Ridge regression solved from sums over chunks of images, with scores for every image from heads that never saw it."""

import numpy as np
import scipy.linalg

from sagemaker_local.algorithms.image_classification.scattering import Array


def stratified_folds(labels: Array, folds: int, generator: np.random.Generator) -> Array:
    """Fold of each image, from 0 to `folds` - 1; every class is spread evenly over them."""
    result = np.empty(len(labels), dtype=np.intp)
    offset = 0
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        result[members] = (np.arange(len(members)) + offset) % folds
        offset += len(members)
    return result


class RidgeSums:
    """Normal equations of a ridge regression, one set of sums per fold: memory does not grow with the images."""

    def __init__(self, folds: int, columns: int, classes: int) -> None:
        self._squares = np.zeros((folds, columns, columns))
        self._products = np.zeros((folds, columns, classes))
        self._total: tuple[Array, Array] | None = None

    def add(self, rows: Array, targets: Array, folds: Array) -> None:
        """Add images: `rows` (images, columns), centred `targets` (images, classes), the fold of each image."""
        self._total = None
        for fold in np.unique(folds):
            chosen = folds == fold
            part = rows[chosen]
            self._squares[fold] += part.T @ part
            self._products[fold] += part.T @ targets[chosen]

    def solve(self, strength: float, without: int | None = None) -> Array:
        """Weights (columns, classes) from all folds, or all but one; `strength` is the ridge."""
        if self._total is None:
            self._total = self._squares.sum(axis=0), self._products.sum(axis=0)
        squares, products = self._total
        if without is None:
            squares = squares.copy()
        else:
            squares, products = squares - self._squares[without], products - self._products[without]
        squares[np.diag_indices_from(squares)] += strength
        return scipy.linalg.solve(squares, products, assume_a="pos", overwrite_a=True, check_finite=False)

    def solve_without_each(self, strength: float) -> Array:
        """Weights (folds, columns, classes), the n-th without fold n."""
        return np.stack([self.solve(strength, fold) for fold in range(len(self._squares))])
