"""Which values to try next: Random, Grid, or Bayesian (a Gaussian process and expected improvement). Pure.

Sources: Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), algorithm 2.1; Snoek et al.,
"Practical Bayesian Optimization" (2012).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from sagemaker_local.tuning.ranges import Range, grid
from sagemaker_local.tuning.trial import Trial

FIRST_RANDOM = 4  # trials before the model has a say
_CANDIDATES, _NEAR = 512, 128
_LENGTHS = (0.1, 0.2, 0.4, 0.8, 1.6)
_NOISE = 1e-4

Array = Any


def next_values(strategy: str, ranges: Sequence[Range], trials: Sequence[Trial], seed: int) -> dict[str, str]:
    """The values for the next training job; the same for the same trials and seed."""
    draw = np.random.default_rng([seed, len(trials)])
    if strategy == "Grid":
        return grid(ranges)[len(trials)]
    scored = [trial for trial in trials if trial.score is not None]
    if strategy == "Random" or len(scored) < FIRST_RANDOM:
        return _values(ranges, draw.random(len(ranges)))
    return _most_promising(ranges, trials, draw)


def _values(ranges: Sequence[Range], draws: Array) -> dict[str, str]:
    return {one.name: one.text(float(draw)) for one, draw in zip(ranges, draws, strict=True)}


def _point(ranges: Sequence[Range], values: dict[str, str]) -> list[float]:
    return [part for one in ranges for part in one.place(values[one.name])]


def _most_promising(ranges: Sequence[Range], trials: Sequence[Trial], draw: Any) -> dict[str, str]:
    """The candidate of greatest expected improvement. Running trials count as if they gave the mean."""
    scores = [trial.score for trial in trials if trial.score is not None]
    center, spread = statistics.fmean(scores), statistics.pstdev(scores) or 1.0
    known = [trial for trial in trials if trial.score is not None or trial.running]
    points = np.array([_point(ranges, trial.values) for trial in known])
    targets = np.array([0.0 if trial.score is None else (trial.score - center) / spread for trial in known])
    draws = draw.random((_CANDIDATES, len(ranges)))
    candidates = [_values(ranges, row) for row in draws]
    best = known[int(targets.argmax())].values
    for row in draws[:_NEAR]:  # near the best: one hyperparameter of it is changed
        changed = int(row[0] * len(ranges)) % len(ranges)
        candidates.append({**best, ranges[changed].name: ranges[changed].text(float(row[-1]))})
    fresh = [one for one in candidates if one not in [trial.values for trial in trials]] or candidates
    mean, deviation = _predict(points, targets, np.array([_point(ranges, one) for one in fresh]))
    return fresh[int(_expected_improvement(mean, deviation, float(targets.max())).argmax())]


def _kernel(left: Array, right: Array, length: float) -> Array:
    """Matern 5/2."""
    distance = np.sqrt(5.0) * np.linalg.norm(left[:, None, :] - right[None, :, :], axis=2) / length
    return (1.0 + distance + distance**2 / 3.0) * np.exp(-distance)


def _predict(points: Array, targets: Array, candidates: Array) -> tuple[Array, Array]:
    """Mean and standard deviation at the candidates, with the length scale of greatest likelihood."""
    fits = []
    for length in _LENGTHS:
        lower = np.linalg.cholesky(_kernel(points, points, length) + _NOISE * np.eye(len(points)))
        weights = np.linalg.solve(lower.T, np.linalg.solve(lower, targets))
        likelihood = -0.5 * float(targets @ weights) - float(np.log(np.diag(lower)).sum())
        fits.append((likelihood, length, lower, weights))
    _, length, lower, weights = max(fits, key=lambda fit: fit[0])
    cross = _kernel(candidates, points, length)
    explained = np.linalg.solve(lower, cross.T)
    return cross @ weights, np.sqrt(np.maximum(1.0 - (explained**2).sum(axis=0), 1e-12))


def _expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    gain = (mean - best) / deviation
    below = np.array([0.5 * (1.0 + math.erf(value / math.sqrt(2.0))) for value in gain])
    density = np.exp(-0.5 * gain**2) / math.sqrt(2.0 * math.pi)
    return deviation * (gain * below + density)
