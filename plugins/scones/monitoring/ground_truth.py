"""Ground truth that arrives after the prediction, and the model quality it shows.

The labels come as JSON lines in Model Monitor's form, joined on the InferenceId the caller sent::

    {"groundTruthData": {"data": "1", "encoding": "CSV"}, "eventMetadata": {"eventId": "<InferenceId>"},
     "eventVersion": "0"}

``data`` is a class index or a class name. Files lie under ``<prefix>/yyyy/mm/dd/HH/``, the hour of the prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from scones.monitoring.capture import quote


class _Data(msgspec.Struct, frozen=True):
    data: str | int | float
    encoding: str = "CSV"


class _Metadata(msgspec.Struct, frozen=True):
    eventId: str


class _Line(msgspec.Struct, frozen=True):
    groundTruthData: _Data
    eventMetadata: _Metadata


_DECODE = msgspec.json.Decoder(_Line).decode


def parse_ground_truth(content: bytes, classes: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Read the labels of one file.

    :param content: JSON lines.
    :param classes: class names in the order of the class indices.
    :return: InferenceId -> class index (the last line wins), and a message for each line that is no label.
    """
    labels: dict[str, int] = {}
    problems: list[str] = []
    index_of = {name: index for index, name in enumerate(classes)}
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            parsed = _DECODE(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            problems.append(f"line {number}: {error}: {quote(line)}")
            continue
        text = str(parsed.groundTruthData.data).strip()
        label = index_of.get(text)
        if label is None:
            try:
                number_given = float(text)
                label = int(number_given) if number_given.is_integer() else -1
            except (ValueError, OverflowError):
                label = -1
        if not 0 <= label < len(classes):
            problems.append(f"line {number}: {text[:40]!r} is neither a class ({', '.join(classes)}) nor its index")
            continue
        labels[parsed.eventMetadata.eventId] = label
    return labels, problems


def model_quality(
    predictions: Sequence[tuple[str, int, float]],
    labels: Mapping[str, int],
    classes: Sequence[str],
    threshold: float,
) -> dict[str, Any] | None:
    """Compare predictions with the ground truth.

    :param predictions: ``(inference_id, predicted class index, confidence)``; the last of an id counts.
    :param labels: inference id -> class index.
    :param threshold: confidence from which a prediction passes.
    :return: a JSON-able dict with Model Monitor's ``binary_classification_metrics`` or
        ``multiclass_classification_metrics``; None when no prediction has a label.
    """
    joined = {identifier: (predicted, confidence) for identifier, predicted, confidence in predictions}
    matched = [identifier for identifier in joined if identifier in labels]
    if not matched:
        return None
    truth = np.array([labels[identifier] for identifier in matched])
    predicted = np.array([joined[identifier][0] for identifier in matched])
    confidence = np.array([joined[identifier][1] for identifier in matched])
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    correct = truth == predicted
    accuracy = float(correct.mean())
    passed = confidence >= threshold
    metrics: dict[str, Any] = {
        "confusion_matrix": {
            name: {other: int(confusion[i, j]) for j, other in enumerate(classes)} for i, name in enumerate(classes)
        },
        "accuracy": {"value": accuracy, "standard_deviation": _deviation(accuracy, len(matched))},
        "per_class": {name: _class_metrics(confusion, i) for i, name in enumerate(classes)},
    }
    kind = "binary_classification_metrics" if len(classes) == 2 else "multiclass_classification_metrics"
    return {
        "version": 0,
        "dataset": {"item_count": len(matched), "labels": len(labels), "unmatched_labels": len(labels) - len(matched)},
        kind: metrics,
        "accuracy": accuracy,
        "accuracy_of_passed": float(correct[passed].mean()) if passed.any() else None,
        "passed": int(passed.sum()),
        "accuracy_upper_bound": _wilson_upper(accuracy, len(matched)),
        "confusion": confusion.tolist(),
    }


def _class_metrics(confusion: NDArray[np.int64], index: int) -> dict[str, float | None]:
    hits, actual, predicted = confusion[index, index], confusion[index].sum(), confusion[:, index].sum()
    return {
        "recall": float(hits / actual) if actual else None,
        "precision": float(hits / predicted) if predicted else None,
        "records": int(actual),
    }


def _deviation(share: float, count: int) -> float:
    return float(np.sqrt(share * (1 - share) / count))


def _wilson_upper(share: float, count: int, z: float = 2.326) -> float:
    """Upper end of Wilson's interval for a share, 99 % one-sided."""
    centre = share + z * z / (2 * count)
    spread = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return float((centre + spread) / (1 + z * z / count))
