"""Training: one basis from a sample, then sums over chunks, so time grows with the images and memory does not."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np

from sagemaker_local.algorithms.image_classification.basis import Basis
from sagemaker_local.algorithms.image_classification.calibration import fit_calibration
from sagemaker_local.algorithms.image_classification.features import Features, planes
from sagemaker_local.algorithms.image_classification.heads import RidgeSums, stratified_folds
from sagemaker_local.algorithms.image_classification.model import Parameters, gaussian, softmax
from sagemaker_local.algorithms.image_classification.patches import learn_dictionary
from sagemaker_local.algorithms.image_classification.rows import Readable, Rows
from sagemaker_local.algorithms.image_classification.scattering import Array

Part = TypeVar("Part")

CHUNK, AT_ONCE = 64, 16


@dataclass(frozen=True)
class Settings:
    """What cross-validation on training images chose (docs/algorithm.md has the numbers)."""

    folds: int = 6
    sample: int = 1536
    atoms: int = 256
    linear_components: int = 1024
    kernel_components: int = 256
    landmarks: int = 768
    knee: float = 0.1
    kernel_width: float = 0.4
    largest_shift: int = 2
    linear_strengths: tuple[float, ...] = (0.1, 0.3, 1.0)
    kernel_strengths: tuple[float, ...] = (0.01, 0.03, 0.1)


@dataclass(frozen=True)
class Fitted:
    """A trained model's numbers, and what it says of its training images when it has not seen them."""

    parameters: Parameters
    held_out: Array  # (images, classes) probabilities from heads trained without the image's fold
    seen: Array  # (images, classes) probabilities from the final heads
    strengths: tuple[float, float]


class Trainer:
    """Learns from passes over the training images; a model can be fitted after each pass.

    Args:
        canvases: uint8 (images, CANVAS, CANVAS, 3), an array or rows of a file.
        labels: class indices (images,).
        classes: number of classes; those without an image only get a small probability.
        scratch: existing folder for the projected images, deleted by the caller.
        seed: everything random follows from it.
        decay: multiplies the ridge strengths that are tried.
        threads: number of threads that share the work; the model does not depend on it.
    """

    def __init__(
        self, canvases: Readable, labels: Array, classes: int, scratch: Path, *,
        seed: int = 0, decay: float = 1.0, threads: int = 2, settings: Settings | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings or Settings()
        self.canvases = canvases
        self.labels = np.asarray(labels, dtype=np.intp)
        self.classes = classes
        self.decay = decay
        self.passes = 0
        self._pool = ThreadPoolExecutor(threads)
        self._generator = np.random.default_rng(seed)
        count = len(canvases)
        sizes = np.bincount(self.labels, minlength=classes)
        smallest = int(sizes[sizes > 0].min())
        self._folds = stratified_folds(self.labels, max(2, min(self.settings.folds, smallest)), self._generator)
        self._targets = 2 * (np.eye(classes) - sizes / count)
        sample = np.sort(self._generator.permutation(count)[: self.settings.sample])
        self.dictionary = learn_dictionary(planes(canvases[sample]), self.settings.atoms, self._generator)
        self.features = Features(self.dictionary)
        s = self.settings
        raw = self._sample(sample, 0)
        # Moved images leave the span of a few hundred still ones: without them the further passes would teach nothing.
        moved = self._sample(sample[: s.sample - len(sample)], s.largest_shift)
        self.basis = Basis(raw, moved, s.knee, s.linear_components, s.kernel_components, self._pool)
        picked = np.sort(self._generator.permutation(len(sample))[: s.landmarks])
        # Few images are all in the sample: their features need not be computed again for the first pass.
        self._sampled: Array | None = raw if len(sample) == count else None
        self._landmarks = self.basis.project(raw[picked]).kernel
        self._width = s.kernel_width / self.features.size
        between = gaussian(self._landmarks, self._landmarks, self.basis.symmetric, self._width).astype(np.float64)
        values, vectors = np.linalg.eigh(between)
        keep = values > 1e-5 * values[-1]
        # Kernel rows times this have the landmarks' kernel as their products: the ridge becomes a plain one.
        self._whiten = (vectors[:, keep] / np.sqrt(values[keep])).astype(np.float32)
        folds = int(self._folds.max()) + 1
        self._linear = RidgeSums(folds, self.basis.even.shape[1], classes)
        self._kernel = RidgeSums(folds, self._whiten.shape[1], classes)
        self._rows = [
            Rows(scratch / f"{name}.rows", (width,), np.float32)
            for name, width in (("linear", self.basis.even.shape[1]), ("kernel", self._whiten.shape[1]))
        ]

    def _chunks(self, indices: Array, largest_shift: int, step: Callable[[Array], Part]) -> Iterator[list[Part]]:
        """`step` of the features of all images, in order, a few chunks at a time: memory does not grow with images.

        Each image is moved by up to `largest_shift` pixels either way. The threads share the chunks; BLAS uses one.
        """
        chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
        moves = [self._generator.integers(-largest_shift, largest_shift + 1, (len(chunk), 2)) for chunk in chunks]

        def compute(task: int) -> Part:
            return step(self.features(_moved(self.canvases[chunks[task]], moves[task], largest_shift)))

        for start in range(0, len(chunks), AT_ONCE):
            yield list(self._pool.map(compute, range(start, min(start + AT_ONCE, len(chunks)))))

    def _sample(self, indices: Array, largest_shift: int) -> Array:
        groups = self._chunks(indices, largest_shift, lambda raw: raw)
        return np.concatenate(
            [np.empty((0, self.features.size), np.float32), *(raw for group in groups for raw in group)]
        )

    def _design(self, raw: Array) -> tuple[Array, Array]:
        """Rows of both heads' design matrices."""
        points = self.basis.project(raw)
        kernel = gaussian(points.kernel, self._landmarks, self.basis.symmetric, self._width) @ self._whiten
        return points.linear / np.float32(np.sqrt(self.features.size)), kernel

    def add_pass(self) -> None:
        """See every training image once more: the first time as it is, then each moved by a random pixel or two."""
        first = self.passes == 0
        if first and self._sampled is not None:
            groups = iter([[self._design(self._sampled)]])
            self._sampled = None
        else:
            shift = 0 if first else self.settings.largest_shift
            groups = self._chunks(np.arange(len(self.labels)), shift, self._design)
        start = 0
        for group in groups:
            for head, sums in enumerate((self._linear, self._kernel)):
                rows = np.concatenate([part[head] for part in group])
                part = slice(start, start + len(rows))
                sums.add(rows, self._targets[self.labels[part]], self._folds[part])
                if first:
                    self._rows[head].append(rows)
            start += len(rows)
        self.passes += 1

    def _scores(self, head: int, weights: Array) -> Array:
        """Scores (images, classes) by `weights` (folds, columns, classes): an image by those of its fold.

        One set of weights (1, columns, classes) is for all images.
        """
        scores = np.empty((len(self.labels), self.classes))
        for start in range(0, len(scores), CHUNK * AT_ONCE):
            part = np.arange(start, min(start + CHUNK * AT_ONCE, len(scores)))
            rows, folds = self._rows[head][part], self._folds[part] % len(weights)
            for fold in np.unique(folds):
                scores[part[folds == fold]] = rows[folds == fold] @ weights[fold]
        return scores

    def fit(self) -> Fitted:
        """Solve both heads on everything seen so far and calibrate them on images held out of them."""
        settings = self.settings
        scores, strengths = [], []
        for head, (sums, tried) in enumerate(
            ((self._linear, settings.linear_strengths), (self._kernel, settings.kernel_strengths))
        ):
            found = []
            for strength in tried:
                held = self._scores(head, sums.solve_without_each(strength * self.decay, self._pool))
                found.append((fit_calibration([held], self.labels)[2], strength * self.decay, held))
            best = min(found, key=lambda candidate: candidate[0])
            strengths.append(best[1])
            scores.append(best[2])
        blend, shift, _ = fit_calibration(scores, self.labels)
        solved = [sums.solve(strength) for sums, strength in zip((self._linear, self._kernel), strengths, strict=True)]
        linear = self.basis.even @ (solved[0] / np.sqrt(self.features.size)).astype(np.float32)
        learned = {f"patch_{part.name}": getattr(self.dictionary, part.name) for part in fields(self.dictionary)}
        parameters = Parameters(
            **learned,
            knee=self.basis.scaling.knee,
            centre=self.basis.scaling.centre,
            scale=self.basis.scaling.scale,
            linear=linear,
            symmetric=self.basis.even[:, : self.basis.symmetric].astype(np.float16),
            antisymmetric=self.basis.odd.astype(np.float16),
            landmarks=self._landmarks,
            kernel=(self._whiten @ solved[1]).astype(np.float32),
            width=np.array(self._width, dtype=np.float32),
            blend=blend,
            shift=shift,
        )
        seen = sum(blend[head] * self._scores(head, weights[None]) for head, weights in enumerate(solved))
        held_out = softmax(blend[0] * scores[0] + blend[1] * scores[1] + shift)
        return Fitted(parameters, held_out, softmax(seen + shift), (strengths[0], strengths[1]))


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
