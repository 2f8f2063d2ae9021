"""Ridge regression solved from sums over chunks of images, with scores for every image from heads that never saw it."""

from concurrent.futures import Executor

import numpy as np

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

    def _sum(self) -> tuple[Array, Array]:
        if self._total is None:
            self._total = self._squares.sum(axis=0), self._products.sum(axis=0)
        return self._total

    def solve(self, strength: float, without: int | None = None) -> Array:
        """Weights (columns, classes) from all folds, or all but one; `strength` is the ridge."""
        squares, products = self._sum()
        if without is None:
            squares = squares.copy()
        else:
            squares, products = squares - self._squares[without], products - self._products[without]
        squares[np.diag_indices_from(squares)] += strength
        return np.linalg.solve(squares, products)  # scipy's would hold up the other threads

    def solve_without_each(self, strength: float, pool: Executor) -> Array:
        """Weights (folds, columns, classes), the n-th without fold n; the folds are shared by the pool's threads."""
        self._sum()
        return np.stack(list(pool.map(lambda fold: self.solve(strength, fold), range(len(self._squares)))))
