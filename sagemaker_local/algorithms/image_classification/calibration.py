"""Probabilities that mean what they say: scores blended and scaled on images their heads had not seen."""

from typing import Any

import numpy as np

from sagemaker_local.algorithms.image_classification.scattering import Array


def log_softmax(scores: Array) -> Array:
    """Logarithm of the softmax of each row."""
    top = scores.max(axis=1, keepdims=True)
    result: Array = scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
    return result


def fit_calibration(heads: list[Array], labels: Array) -> tuple[Array, Array, float]:
    """Weights of the heads' scores and a shift per class that minimise the log loss of their softmax.

    Platt scaling (Platt 1999) for one head and two classes, matrix-free temperature scaling with a bias (Guo et al.
    2017) for several. A weak pull towards small numbers keeps it finite when the classes separate perfectly.

    Args:
        heads: scores (images, classes) of each head, of images it was not trained on.
        labels: class indices.

    Returns:
        Blend (heads,), shift (classes,), log loss on the same images.
    """
    from scipy.optimize import minimize  # takes as long to import as all else of the algorithm

    classes = heads[0].shape[1]
    scores = np.stack(heads)
    chosen = np.eye(classes)[labels]

    def loss(parameters: Array) -> tuple[float, Array]:
        blend, shift = parameters[: len(heads)], parameters[len(heads) :]
        logs = log_softmax(np.tensordot(blend, scores, 1) + shift)
        residual = (np.exp(logs) - chosen) / len(labels)
        gradient = np.concatenate([np.tensordot(scores, residual, ((1, 2), (0, 1))), residual.sum(axis=0)])
        value = -float((logs * chosen).sum()) / len(labels) + 1e-5 * float(parameters @ parameters)
        return value, gradient + 2e-5 * parameters

    start = np.concatenate([np.full(len(heads), 2.0 / len(heads)), np.zeros(classes)])
    bounds: list[tuple[float | None, float | None]] = [(0.0, None)] * len(heads) + [(None, None)] * classes
    found: Any = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return found.x[: len(heads)], found.x[len(heads) :], float(found.fun)


def accuracy(probabilities: Array, labels: Array) -> float:
    """Share of images whose most probable class is theirs."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def top_k_accuracy(probabilities: Array, labels: Array, k: int) -> float:
    """Share of images whose class is among the `k` most probable."""
    best = np.argpartition(-probabilities, k - 1, axis=1)[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def log_loss(probabilities: Array, labels: Array) -> float:
    """Mean negative logarithm of the probability given to the true class, in nats."""
    return float(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-15, 1)).mean())


def expected_calibration_error(probabilities: Array, labels: Array, bins: int = 10) -> float:
    """Mean gap between confidence and accuracy over equal-width bins of the top probability, weighted by images."""
    rows = reliability(probabilities, labels, bins)
    return sum(row["images"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / len(labels)


def reliability(probabilities: Array, labels: Array, bins: int = 10) -> list[dict[str, float]]:
    """Reliability diagram: per bin of the top probability, its images, mean confidence and accuracy."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "from": b / bins,
            "to": (b + 1) / bins,
            "images": int((place == b).sum()),
            "confidence": float(confidence[place == b].mean()),
            "accuracy": float(correct[place == b].mean()),
        }
        for b in range(bins)
        if (place == b).any()
    ]


def report(probabilities: Array, labels: Array) -> dict[str, float]:
    """Accuracy, log loss (nats), expected calibration error (10 bins) and the number of images."""
    return {
        "images": len(labels),
        "accuracy": accuracy(probabilities, labels),
        "log_loss": log_loss(probabilities, labels),
        "expected_calibration_error": expected_calibration_error(probabilities, labels),
    }
