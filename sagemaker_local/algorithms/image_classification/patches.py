"""A dictionary of small patches learned from the training images, and how much of each an image has where.

Patches are normalised, whitened and compared with unit-length atoms found by spherical k-means; what exceeds a
threshold is averaged over Gaussian windows on a grid. Atoms come in mirrored pairs, so a mirrored image has the same
features in another order. Source: Coates and Ng, "Learning Feature Representations with K-means", 2012.
"""

from dataclasses import dataclass

import numpy as np

from sagemaker_local.algorithms.image_classification.scattering import Array, windows

SIDE = 6
STRIDE = 2
GRID = 3
_LEARNING_PATCHES = 20_000
_ROUNDS = 10


@dataclass(frozen=True)
class Dictionary:
    """What is learned. K atoms of P = 3 * SIDE * SIDE numbers, the second half mirrored copies of the first."""

    spread: Array  # (3,) standard deviation of each plane
    whiten: Array  # (P, P)
    centre: Array  # (P,)
    atoms: Array  # (K, P)
    threshold: Array  # ()


def _cut(planes: Array, stride: int) -> Array:
    """Patches (images, rows, columns, 3, SIDE, SIDE) of planes (images, side, side, 3)."""
    return np.lib.stride_tricks.sliding_window_view(planes, (SIDE, SIDE), (1, 2))[:, ::stride, ::stride]


def _normalised(patches: Array) -> Array:
    """Mean 0 and deviation about 1, less for patches that are nearly flat."""
    patches = patches - patches.mean(axis=1, keepdims=True)
    patches /= np.sqrt((patches**2).mean(axis=1, keepdims=True) + 0.01)
    return patches


def _mirrored(patches: Array) -> Array:
    return np.ascontiguousarray(patches.reshape(-1, 3, SIDE, SIDE)[..., ::-1]).reshape(len(patches), -1)


def _unit(rows: Array) -> Array:
    result: Array = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6)
    return result


def learn_dictionary(planes: Array, atoms: int, generator: np.random.Generator) -> Dictionary:
    """Learn `atoms` (even) atoms from float32 planes (images, side, side, 3)."""
    spread = (planes.std(axis=(0, 1, 2)) + 1e-3).astype(np.float32)
    views = _cut(planes, 1)
    places = [generator.integers(0, views.shape[axis], _LEARNING_PATCHES) for axis in range(3)]
    drawn = (views[tuple(places)] / spread[:, None, None]).reshape(_LEARNING_PATCHES, -1)
    normal = _normalised(np.concatenate([drawn, _mirrored(drawn)]))
    centre = normal.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(normal.T))
    whiten = ((vectors / np.sqrt(values + 0.1 * values.mean())) @ vectors.T).astype(np.float32)
    points = _unit((normal[:_LEARNING_PATCHES] - centre) @ whiten)
    half = points[generator.permutation(len(points))[: atoms // 2]].copy()
    for _ in range(_ROUNDS):
        nearest = (points @ np.concatenate([half, _mirrored(half)]).T).argmax(axis=1)
        turned = nearest >= len(half)
        members = np.where(turned[:, None], _mirrored(points), points)
        order = np.argsort(nearest % len(half), kind="stable")
        present, starts = np.unique((nearest % len(half))[order], return_index=True)
        half[present] = _unit(np.add.reduceat(members[order], starts, axis=0))
    both = np.concatenate([half, _mirrored(half)])
    threshold = np.quantile(points[:4000] @ both.T, 0.8)
    return Dictionary(
        spread, whiten, centre.astype(np.float32), both.astype(np.float32), np.array(threshold, dtype=np.float32)
    )


class PatchFeatures:
    """Maps float32 planes (images, side, side, 3) to (images, K * GRID * GRID)."""

    def __init__(self, dictionary: Dictionary, canvas: int) -> None:
        self._dictionary = dictionary
        self._rows = (canvas - SIDE) // STRIDE + 1
        self._cut = _cut(np.arange(canvas * canvas * 3).reshape(1, canvas, canvas, 3), STRIDE).ravel()
        # Patch n begins at pixel STRIDE * n: its middle is (SIDE - 1) / 2 further.
        self._windows = windows(self._rows, GRID, STRIDE, -(SIDE - 1) / 2, canvas)

    @property
    def size(self) -> int:
        return len(self._dictionary.atoms) * GRID**2

    def mirror(self) -> Array:
        """Positions p with features(mirrored image) = features(image)[p]."""
        atoms = len(self._dictionary.atoms)
        partner = (np.arange(atoms) + atoms // 2) % atoms
        cells = np.arange(GRID**2).reshape(GRID, GRID)[:, ::-1].ravel()
        return (partner[:, None] * GRID**2 + cells[None, :]).ravel()

    def __call__(self, planes: Array) -> Array:
        learned = self._dictionary
        patches = (planes / learned.spread).reshape(len(planes), -1).take(self._cut, axis=1)
        normal = _normalised(patches.reshape(len(planes) * self._rows**2, -1))
        normal -= learned.centre
        active = _unit(normal @ learned.whiten) @ learned.atoms.T
        active -= learned.threshold
        np.maximum(active, 0, out=active)
        averaged = np.matmul(active.reshape(len(planes), self._rows**2, -1).transpose(0, 2, 1), self._windows)
        # The square root evens out rare strong and frequent weak responses.
        return np.sqrt(averaged, out=averaged).reshape(len(planes), -1)
