"""Training: one basis from a sample, then sums over chunks, so time grows with the images and memory does not."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from sagemaker_local.algorithms.image_classification.basis import Basis
from sagemaker_local.algorithms.image_classification.calibration import fit_calibration
from sagemaker_local.algorithms.image_classification.features import Features
from sagemaker_local.algorithms.image_classification.heads import RidgeSums, stratified_folds
from sagemaker_local.algorithms.image_classification.images import Stored
from sagemaker_local.algorithms.image_classification.model import Parameters, softmax
from sagemaker_local.algorithms.image_classification.rows import Readable, Rows
from sagemaker_local.algorithms.image_classification.scattering import Array

Part = TypeVar("Part")

CHUNK, AT_ONCE = 64, 16


@dataclass(frozen=True)
class Settings:
    """What cross-validation on training images chose (docs/algorithm.md has the numbers)."""

    folds: int = 6
    sample: int = 1536
    components: int = 1024
    knee: float = 0.1
    largest_shift: int = 2
    linear_strengths: tuple[float, ...] = (0.1, 0.3, 1.0)
    network_strengths: tuple[float, ...] = (0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Fitted:
    """A trained model's numbers, and what it says of its training images when it has not seen them."""

    parameters: Parameters
    held_out: Array  # (images, classes) probabilities from heads trained without the image's fold
    seen: Array  # (images, classes) probabilities from the final heads
    strengths: dict[str, float]  # of the ridge, by head


@dataclass(frozen=True)
class _Head:
    sums: RidgeSums
    rows: Rows  # of the images as they are
    strengths: tuple[float, ...]


class Trainer:
    """Learns from passes over the training images; a model can be fitted after each pass.

    Args:
        images: the training images.
        labels: class indices (images,).
        classes: number of classes; those without an image only get a small probability.
        scratch: existing folder for the projected images, deleted by the caller.
        seed: everything random follows from it.
        decay: multiplies the ridge strengths that are tried.
        threads: number of threads that share the work; the model does not depend on it.
    """

    def __init__(
        self, images: Stored, labels: Array, classes: int, scratch: Path, *,
        seed: int = 0, decay: float = 1.0, threads: int = 2, settings: Settings | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings or Settings()
        self.images = images
        self.labels = np.asarray(labels, dtype=np.intp)
        self.classes = classes
        self.decay = decay
        self.passes = 0
        self.features = Features()
        self._pool = ThreadPoolExecutor(threads)
        self._generator = np.random.default_rng(seed)
        count = len(self.labels)
        sizes = np.bincount(self.labels, minlength=classes)
        smallest = int(sizes[sizes > 0].min())
        self._folds = stratified_folds(self.labels, max(2, min(self.settings.folds, smallest)), self._generator)
        self._targets = 2 * (np.eye(classes) - sizes / count)
        s = self.settings
        sample = np.sort(self._generator.permutation(count)[: s.sample])
        raw = self._sample(sample, 0)
        # Moved images leave the span of a few hundred still ones: without them the further passes would teach nothing.
        moved = self._sample(sample[: s.sample - len(sample)], s.largest_shift)
        self.basis = Basis(raw, moved, s.knee, s.components)
        # Few images are all in the sample: their features need not be computed again for the first pass.
        self._sampled: Array | None = raw if len(sample) == count else None
        self._heads = {"linear": self._head(scratch, "linear", self.basis.directions.shape[1], s.linear_strengths)}
        if images.network is not None:
            seen = images.network[sample]
            self._network_centre, spread = seen.mean(axis=0), seen.std(axis=0)
            # Of unit length on average, as the ridge strengths have it.
            self._network_scale = (spread + 1e-3 * spread.mean() + 1e-6) * np.float32(np.sqrt(seen.shape[1]))
            self._heads["network"] = self._head(scratch, "network", seen.shape[1], s.network_strengths)

    def _head(self, scratch: Path, name: str, columns: int, strengths: tuple[float, ...]) -> _Head:
        sums = RidgeSums(int(self._folds.max()) + 1, columns, self.classes)
        return _Head(sums, Rows(scratch / f"{name}.rows", (columns,), np.float32), strengths)

    def _chunks(self, indices: Array, largest_shift: int, step: Callable[[Array], Part]) -> Iterator[list[Part]]:
        """`step` of the features of all images, in order, a few chunks at a time: memory does not grow with images.

        Each image is moved by up to `largest_shift` pixels either way. The threads share the chunks; BLAS uses one.
        """
        chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
        moves = [self._generator.integers(-largest_shift, largest_shift + 1, (len(chunk), 2)) for chunk in chunks]

        def compute(task: int) -> Part:
            return step(self.features(_moved(self.images.canvases[chunks[task]], moves[task], largest_shift)))

        for start in range(0, len(chunks), AT_ONCE):
            yield list(self._pool.map(compute, range(start, min(start + AT_ONCE, len(chunks)))))

    def _sample(self, indices: Array, largest_shift: int) -> Array:
        groups = self._chunks(indices, largest_shift, lambda raw: raw)
        return np.concatenate(
            [np.empty((0, 2, self.features.size), np.float32), *(raw for group in groups for raw in group)]
        )

    def _design(self, raw: Array) -> Array:
        """Rows of the linear head's design matrix."""
        return self.basis.project(raw) / np.float32(np.sqrt(2 * self.features.size))

    def add_pass(self) -> None:
        """See every training image once more: the first time as it is, then each moved by a random pixel or two."""
        first = self.passes == 0
        if first and self._sampled is not None:
            groups = iter([[self._design(self._sampled)]])
            self._sampled = None
        else:
            shift = 0 if first else self.settings.largest_shift
            groups = self._chunks(np.arange(len(self.labels)), shift, self._design)
        self._add("linear", (np.concatenate(group) for group in groups), keep=first)
        if first and self.images.network is not None:  # it sees the images as they are alone: moved ones bring nothing
            self._add("network", self._network_rows(self.images.network), keep=True)
        self.passes += 1

    def _network_rows(self, network: Readable) -> Iterator[Array]:
        for start in range(0, len(self.labels), CHUNK * AT_ONCE):
            part = network[np.arange(start, min(start + CHUNK * AT_ONCE, len(self.labels)))]
            yield (part - self._network_centre) / self._network_scale

    def _add(self, name: str, groups: Iterable[Array], *, keep: bool) -> None:
        """Add design rows of all images, in order, to a head's sums."""
        head, start = self._heads[name], 0
        for rows in groups:
            part = slice(start, start + len(rows))
            head.sums.add(rows, self._targets[self.labels[part]], self._folds[part])
            if keep:
                head.rows.append(rows)
            start += len(rows)

    def _scores(self, head: _Head, weights: Array) -> Array:
        """Scores (images, classes) by `weights` (folds, columns, classes): an image by those of its fold.

        One set of weights (1, columns, classes) is for all images.
        """
        scores = np.empty((len(self.labels), self.classes))
        for start in range(0, len(scores), CHUNK * AT_ONCE):
            part = np.arange(start, min(start + CHUNK * AT_ONCE, len(scores)))
            rows, folds = head.rows[part], self._folds[part] % len(weights)
            for fold in np.unique(folds):
                scores[part[folds == fold]] = rows[folds == fold] @ weights[fold]
        return scores

    def _best(self, head: _Head) -> tuple[float, Array]:
        """The ridge strength that tells held-out images apart best, and their scores with it."""
        found = []
        for strength in head.strengths:
            held = self._scores(head, head.sums.solve_without_each(strength * self.decay, self._pool))
            found.append((fit_calibration([held], self.labels)[2], strength * self.decay, held))
        _, strength, held = min(found, key=lambda candidate: candidate[0])
        return strength, held

    def fit(self) -> Fitted:
        """Solve the heads on everything seen so far and calibrate them on images held out of them."""
        strengths, held = zip(*(self._best(head) for head in self._heads.values()), strict=True)
        blend, shift, _ = fit_calibration(list(held), self.labels)
        solved = [head.sums.solve(strength) for head, strength in zip(self._heads.values(), strengths, strict=True)]
        seen = [self._scores(head, weights[None]) for head, weights in zip(self._heads.values(), solved, strict=True)]
        network, offset = np.empty((0, self.classes), np.float32), np.zeros(self.classes)
        if "network" in self._heads:
            network = (solved[1] / self._network_scale[:, None]).astype(np.float32)
            offset = -blend[1] * (self._network_centre @ network)
        linear = self.basis.directions @ (solved[0] / np.sqrt(2 * self.features.size)).astype(np.float32)
        scaling = self.basis.scaling
        return Fitted(
            Parameters(scaling.knee, scaling.centre, scaling.scale, linear, network, blend, shift + offset),
            softmax(np.tensordot(blend, np.stack(held), 1) + shift),
            softmax(np.tensordot(blend, np.stack(seen), 1) + shift),
            dict(zip(self._heads, strengths, strict=True)),
        )


def _moved(canvases: Array, moves: Array, largest: int) -> Array:
    """Canvases moved by (down, right) pixels each, their borders mirrored."""
    if largest == 0:
        return canvases
    side = canvases.shape[1]
    padded = np.pad(canvases, ((0, 0), (largest, largest), (largest, largest), (0, 0)), "reflect")
    rows = (moves[:, :1] + largest + np.arange(side))[:, :, None]
    columns = (moves[:, 1:] + largest + np.arange(side))[:, None, :]
    result: Array = padded[np.arange(len(canvases))[:, None, None], rows, columns]
    return result
