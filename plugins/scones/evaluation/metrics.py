"""How good a model is on images it never saw, from its labels and probabilities alone.

The document has the form of Model Monitor's model-quality statistics (binary or multiclass metrics, each with ``value``
and ``standard_deviation``) plus calibration, the threshold sweep and a recommended threshold.

Form: https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-model-quality-metrics.html
Expected calibration error: Guo et al. 2017. Interval: Wilson 1927. Paired test: McNemar 1947, exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MAX_CURVE_POINTS = 200
CALIBRATION_BINS = 10
_MIN_ACCEPTED = 20
_NOT_MEASURED = "NaN"  # as Model Monitor writes it


class EvaluationError(ValueError):
    """Labels or probabilities that cannot be evaluated. Trying again changes nothing."""


def check_probabilities(labels: Any, probabilities: Any, class_count: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) int and probabilities (N, K) float64 whose rows sum to 1.

    Raises:
        EvaluationError: they do not fit together, or a row is no distribution (finite, 0..1, sum within 1 %).
    """
    truth, given = np.asarray(labels, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
    if truth.ndim != 1 or not len(truth):
        raise EvaluationError("There is no labelled image to evaluate on.")
    if given.shape != (len(truth), class_count):
        raise EvaluationError(f"Probabilities have the shape {given.shape}, expected ({len(truth)}, {class_count}).")
    if truth.min() < 0 or truth.max() >= class_count:
        raise EvaluationError(f"A label is outside 0..{class_count - 1}.")
    sums = given.sum(axis=1)
    bad = ~np.isfinite(given).all(axis=1) | (given < 0).any(axis=1) | ~(np.abs(sums - 1) <= 0.01)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise EvaluationError(
            f"{int(bad.sum())} answers are no probabilities, the first for image {row}: {given[row].tolist()!s:.120}."
        )
    return truth, given / sums[:, None]


def _binomial_test(successes: int, trials: int, **options: Any) -> Any:
    # Takes seconds to import, and most tasks that import this module test nothing.
    from scipy.stats import binomtest

    return binomtest(successes, trials, **options)


def wilson_lower_bound(successes: int, trials: int, confidence: float) -> float:
    """One-sided lower bound of a share: with ``confidence`` the true share is above it. 0 without trials."""
    if not trials:
        return 0.0
    test = _binomial_test(successes, trials, alternative="greater")
    return float(test.proportion_ci(confidence, method="wilson").low)


def wilson_interval(successes: int, trials: int, confidence: float) -> list[float]:
    """Two-sided bounds of a share; 0 and 1 without trials."""
    if not trials:
        return [0.0, 1.0]
    found = _binomial_test(successes, trials).proportion_ci(confidence, method="wilson")
    return [float(found.low), float(found.high)]


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, class_count: int) -> np.ndarray:
    """Counts (K, K): row is the true class, column the predicted one."""
    return np.bincount(labels * class_count + predicted, minlength=class_count**2).reshape(class_count, class_count)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def per_class(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and support of each class. What cannot be measured (nothing predicted) counts as 0."""
    result = {}
    for index, name in enumerate(classes):
        hit = float(confusion[index, index])
        precision, recall = _ratio(hit, confusion[:, index].sum()), _ratio(hit, confusion[index].sum())
        f1 = _ratio(2 * precision * recall, precision + recall)
        support = int(confusion[index].sum())
        result[name] = {"precision": precision, "recall": recall, "f1": f1, "support": support}
    return result


def roc_curve(positive: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """ROC of ``scores`` (N,) for the truth ``positive`` (N,) bool; the area is exact, the curve at most 200 points.

    The area is None when one of the two kinds is missing.
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    order = np.argsort(-scores, kind="stable")
    hits = positive[order]
    last_of_score = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true_rate = np.concatenate([[0.0], np.cumsum(hits)[last_of_score] / max(positives, 1)])
    false_rate = np.concatenate([[0.0], np.cumsum(~hits)[last_of_score] / max(negatives, 1)])
    area = float(np.trapezoid(true_rate, false_rate)) if positives and negatives else None
    if len(true_rate) > MAX_CURVE_POINTS:
        kept = np.unique(np.linspace(0, len(true_rate) - 1, MAX_CURVE_POINTS).round().astype(int))
        true_rate, false_rate = true_rate[kept], false_rate[kept]
    return {"auc": area, "false_positive_rates": false_rate.tolist(), "true_positive_rates": true_rate.tolist()}


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean negative log likelihood in nats; a probability of 0 for the truth counts as 1e-15."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(chosen, 1e-15, 1.0)).mean())


def calibration(labels: np.ndarray, probabilities: np.ndarray, bins: int = CALIBRATION_BINS) -> dict[str, Any]:
    """Reliability: per bin of confidence (highest probability) its images, mean confidence and accuracy, and the
    expected calibration error: the mean distance between the two, weighted by images. Empty bins are left out."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0.0, 1.0, bins + 1)
    which = np.clip(np.digitize(confidence, edges[1:-1]), 0, bins - 1)
    rows, error = [], 0.0
    for index in range(bins):
        inside = which == index
        count = int(inside.sum())
        if count:
            mean, accuracy = float(confidence[inside].mean()), float(correct[inside].mean())
            error += abs(mean - accuracy) * count / len(labels)
            bounds = {"from": round(float(edges[index]), 6), "to": round(float(edges[index + 1]), 6)}
            rows.append({**bounds, "images": count, "confidence": mean, "accuracy": accuracy})
    return {"expected_calibration_error": error, "bins": rows}


def threshold_sweep(labels: np.ndarray, probabilities: np.ndarray, confidence: float = 0.9) -> list[dict[str, Any]]:
    """For thresholds from chance to 0.99 in steps of 0.01: share of images accepted (highest probability at least the
    threshold, as the workflow's filter compares), their accuracy (None without any), both with two-sided intervals, and
    the accuracy's one-sided lower bound, which the recommendation goes by."""
    best = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    rows: list[dict[str, Any]] = []
    for step in range(math.floor(100 / probabilities.shape[1]), 100):
        threshold = step / 100
        accepted = best >= threshold
        count, right = int(accepted.sum()), int(correct[accepted].sum())
        rows.append(
            {
                "threshold": threshold,
                "coverage": count / len(labels),
                "coverage_interval": wilson_interval(count, len(labels), confidence),
                "accuracy": right / count if count else None,
                "accuracy_interval": wilson_interval(right, count, confidence),
                "accepted": count,
                "wrong": count - right,
                "accuracy_lower_bound": wilson_lower_bound(right, count, confidence),
            }
        )
    return rows


def recommend_threshold(sweep: Sequence[Mapping[str, Any]], target_accuracy: float) -> dict[str, Any]:
    """The smallest threshold at which the accepted images' accuracy is at least the target, even at its lower bound.

    Smallest, because every point of threshold costs coverage; the bound, because with few accepted images a
    perfect score proves little (at least 20 must be accepted). ``threshold`` is None, with the reason, when no
    threshold does it.
    """
    for row in sweep:
        if row["accepted"] >= _MIN_ACCEPTED and row["accuracy_lower_bound"] >= target_accuracy:
            why = (
                f"smallest threshold whose accepted images are right at least {target_accuracy:.1%} of the time "
                f"(lower bound {row['accuracy_lower_bound']:.1%}), accepting {row['coverage']:.0%} of the images"
            )
            return {"threshold": row["threshold"], "target_accuracy": target_accuracy, "reason": why}
    why = (
        f"no threshold proves an accuracy of {target_accuracy:.1%} on the accepted images: more test images are needed"
    )
    return {"threshold": None, "target_accuracy": target_accuracy, "reason": f"{why}, or a better model"}


def _metric(value: float | None, deviation: float | None = None) -> dict[str, Any]:
    shown = _NOT_MEASURED if deviation is None else deviation
    return {"value": _NOT_MEASURED if value is None else value, "standard_deviation": shown}


def _share(hits: float, trials: float) -> dict[str, Any]:
    share = _ratio(hits, trials)
    return _metric(share, math.sqrt(share * (1 - share) / trials) if trials else None)


def _f_beta(precision: float, recall: float, beta: float) -> float:
    return _ratio((1 + beta**2) * precision * recall, beta**2 * precision + recall)


def _binary(matrix: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Model Monitor's binary metrics; the second class of the list is the positive one."""
    (tn, fp), (fn, tp) = matrix.tolist()
    precision, recall = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
    curve = roc_curve(labels == 1, probabilities[:, 1])
    return {
        "precision": _share(tp, tp + fp),
        "recall": _share(tp, tp + fn),
        "true_positive_rate": _share(tp, tp + fn),
        "true_negative_rate": _share(tn, tn + fp),
        "false_positive_rate": _share(fp, tn + fp),
        "false_negative_rate": _share(fn, tp + fn),
        "f0_5": _metric(_f_beta(precision, recall, 0.5)),
        "f1": _metric(_f_beta(precision, recall, 1.0)),
        "f2": _metric(_f_beta(precision, recall, 2.0)),
        "auc": _metric(curve.pop("auc")),
        "receiver_operating_characteristic_curve": curve,
    }


def _multiclass(matrix: np.ndarray) -> dict[str, Any]:
    """Model Monitor's multiclass metrics: averages over the classes, weighted by their images."""
    support = matrix.sum(axis=1)
    hits, predicted = np.diag(matrix), matrix.sum(axis=0)
    pairs = [(_ratio(h, p), _ratio(h, s)) for h, p, s in zip(hits, predicted, support, strict=True)]
    weights = support / support.sum()
    averages = {
        "weighted_precision": [precision for precision, _ in pairs],
        "weighted_recall": [recall for _, recall in pairs],
        "weighted_f0_5": [_f_beta(*pair, 0.5) for pair in pairs],
        "weighted_f1": [_f_beta(*pair, 1.0) for pair in pairs],
        "weighted_f2": [_f_beta(*pair, 2.0) for pair in pairs],
    }
    return {name: _metric(float(np.dot(weights, values))) for name, values in averages.items()}


def evaluate(
    labels: Any,
    probabilities: Any,
    classes: Sequence[str],
    *,
    target_accuracy: float = 0.95,
    confidence: float = 0.9,
) -> dict[str, Any]:
    """Everything about one model on one set of images, ready for JSON.

    Args:
        labels: N class indices.
        probabilities: (N, K), column = class index.
        target_accuracy: what accepted images should reach; the recommended threshold follows from it.
        confidence: one-sided confidence of the lower bounds, in [0.5, 1).

    Raises:
        EvaluationError: the input is not labels and probabilities, or a parameter is out of range.
    """
    if not 0 < target_accuracy < 1 or not 0.5 <= confidence < 1:
        raise EvaluationError(f"target_accuracy {target_accuracy} or confidence {confidence} is out of range.")
    truth, given = check_probabilities(labels, probabilities, len(classes))
    matrix = confusion_matrix(truth, given.argmax(axis=1), len(classes))
    right, total = int(np.trace(matrix)), len(truth)
    curves = {name: roc_curve(truth == index, given[:, index]) for index, name in enumerate(classes)}
    areas = [curve["auc"] for curve in curves.values() if curve["auc"] is not None]
    kind = "binary" if len(classes) == 2 else "multiclass"
    metrics = {
        "confusion_matrix": {
            str(row): {str(column): int(count) for column, count in enumerate(counts)}
            for row, counts in enumerate(matrix)
        },
        "accuracy": _share(right, total),
        "accuracy_best_constant_classifier": _share(int(matrix.sum(axis=1).max()), total),
        **(_binary(matrix, truth, given) if kind == "binary" else _multiclass(matrix)),
        "per_class": per_class(matrix, classes),
        "roc_one_vs_rest": curves,
        "auc_one_vs_rest_mean": _metric(float(np.mean(areas)) if areas else None),
    }
    sweep = threshold_sweep(truth, given, confidence)
    advice = recommend_threshold(sweep, target_accuracy)
    reliability = calibration(truth, given)
    return {
        "version": 0.0,
        "dataset": {"item_count": total},
        f"{kind}_classification_metrics": metrics,
        "classes": list(classes),
        "images": total,
        "test_accuracy": right / total,
        "test_accuracy_lower_bound": wilson_lower_bound(right, total, confidence),
        "log_loss": log_loss(truth, given),
        "expected_calibration_error": reliability["expected_calibration_error"],
        "calibration": reliability,
        # The monitor compares the endpoint's confidences with these; a sweep in steps of 0.01 is too coarse near 1.
        "confidence_quantiles": [float(v) for v in np.quantile(given.max(axis=1), np.linspace(0, 1, 201))],
        "threshold_sweep": sweep,
        "recommended_threshold": advice["threshold"],
        "recommendation": {**advice, "confidence": confidence},
    }


def compare(labels: Any, challenger: Any, champion: Any, class_count: int) -> dict[str, Any]:
    """Champion and challenger on the same images: accuracies, who alone is right how often, and the exact two-sided
    McNemar p-value (the chance of a split at least this uneven between equally good models)."""
    truth, new = check_probabilities(labels, challenger, class_count)
    _, old = check_probabilities(labels, champion, class_count)
    new_right, old_right = new.argmax(axis=1) == truth, old.argmax(axis=1) == truth
    only_new, only_old = int((new_right & ~old_right).sum()), int((old_right & ~new_right).sum())
    uneven = only_new + only_old
    return {
        "accuracy": float(old_right.mean()),
        "log_loss": log_loss(truth, old),
        "expected_calibration_error": calibration(truth, old)["expected_calibration_error"],
        "difference": float(new_right.mean() - old_right.mean()),
        "only_challenger_right": only_new,
        "only_champion_right": only_old,
        "p_value": float(_binomial_test(only_new, uneven).pvalue) if uneven else 1.0,
        "images": len(truth),
    }
