"""Ground truth that arrives after the prediction, and the model quality it shows.

The labels come as JSON lines in Model Monitor's form, joined on the InferenceId the caller sent::

    {"groundTruthData": {"data": "1", "encoding": "CSV"}, "eventMetadata": {"eventId": "<InferenceId>"},
     "eventVersion": "0"}

``data`` is a class index or a class name. ``"selection": "rejected"`` in the metadata marks what was labelled because
the model was not sure of it: such labels say nothing of all answers, and are counted apart. Files lie under
``<prefix>/yyyy/mm/dd/HH/``, the hour of the prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from scones.monitoring.capture import quote


class _Data(msgspec.Struct, frozen=True):
    data: str | int | float
    encoding: str = "CSV"


class _Metadata(msgspec.Struct, frozen=True):
    eventId: str
    selection: str = ""


class _Line(msgspec.Struct, frozen=True):
    groundTruthData: _Data
    eventMetadata: _Metadata


_DECODE = msgspec.json.Decoder(_Line).decode


#: The selection of labels from the reject queue.
REJECTED = "rejected"


def ground_truth_line(inference_id: str, label: str, selection: str) -> bytes:
    """One line of ground truth."""
    line = {
        "groundTruthData": {"data": label, "encoding": "CSV"},
        "eventMetadata": {"eventId": inference_id, "selection": selection},
        "eventVersion": "0",
    }
    return msgspec.json.encode(line) + b"\n"


@dataclass
class GroundTruth:
    """Labels of one or more files: InferenceId -> class index, the last line wins.

    Attributes:
        labels: of answers that nobody chose by what the model said.
        rejected: of answers that were labelled because the model was not sure.
        problems: a message for each line that is no label.
    """

    labels: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def read(self, content: bytes, classes: Sequence[str]) -> None:
        """Add the labels of a file: JSON lines. ``classes`` are the names in the order of the class indices."""
        for number, line in enumerate(content.split(b"\n"), start=1):
            if not line.strip():
                continue
            try:
                parsed = _DECODE(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                self.problems.append(f"line {number}: {error}: {quote(line)}")
                continue
            text, meta = str(parsed.groundTruthData.data).strip(), parsed.eventMetadata
            label = _index(text, classes)
            if label is None:
                known = f"neither a class ({', '.join(classes)}) nor its index"
                self.problems.append(f"line {number}: {text[:40]!r} is {known}")
            elif meta.selection == REJECTED:
                self.rejected[meta.eventId] = label
            else:
                self.labels[meta.eventId] = label


def _index(text: str, classes: Sequence[str]) -> int | None:
    if text in classes:
        return classes.index(text)
    try:
        number = float(text)
    except (ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() and 0 <= number < len(classes) else None


class Quality(TypedDict):
    """How predictions compare with the ground truth; the metrics in Model Monitor's form.

    ``accuracy_upper_bound`` is the upper end of the 99 % one-sided Wilson interval, ``confusion`` counts true classes
    by row, predicted ones by column.
    """

    version: int
    dataset: dict[str, int]
    binary_classification_metrics: NotRequired[dict[str, Any]]
    multiclass_classification_metrics: NotRequired[dict[str, Any]]
    accuracy: float
    accuracy_of_passed: float | None
    passed: int
    accuracy_upper_bound: float
    confusion: list[list[int]]


def model_quality(
    predictions: Sequence[tuple[str, int, float]],
    labels: Mapping[str, int],
    classes: Sequence[str],
    threshold: float,
) -> Quality | None:
    """Compare predictions with the ground truth; None when no prediction has a label.

    Args:
        predictions: ``(inference_id, predicted class index, confidence)``; the last of an id counts.
        labels: inference id -> class index.
        threshold: confidence from which a prediction passes.
    """
    from scipy.stats import binomtest  # takes seconds: not for those who only write ground truth

    joined = {identifier: (predicted, confidence) for identifier, predicted, confidence in predictions}
    matched = [identifier for identifier in joined if identifier in labels]
    if not matched:
        return None
    truth = np.array([labels[identifier] for identifier in matched])
    predicted = np.array([joined[identifier][0] for identifier in matched])
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    correct = truth == predicted
    passed = np.array([joined[identifier][1] for identifier in matched]) >= threshold
    accuracy, count = float(correct.mean()), len(matched)
    quality: Quality = {
        "version": 0,
        "dataset": {"item_count": count, "labels": len(labels), "unmatched_labels": len(labels) - count},
        "accuracy": accuracy,
        "accuracy_of_passed": float(correct[passed].mean()) if passed.any() else None,
        "passed": int(passed.sum()),
        "accuracy_upper_bound": binomtest(int(correct.sum()), count).proportion_ci(0.98, "wilson").high,
        "confusion": confusion.tolist(),
    }
    metrics = {
        "confusion_matrix": {
            name: dict(zip(classes, row, strict=True)) for name, row in zip(classes, confusion.tolist(), strict=True)
        },
        "accuracy": {"value": accuracy, "standard_deviation": float(np.sqrt(accuracy * (1 - accuracy) / count))},
        "per_class": {name: _class_metrics(confusion, index) for index, name in enumerate(classes)},
    }
    if len(classes) == 2:
        quality["binary_classification_metrics"] = metrics
    else:
        quality["multiclass_classification_metrics"] = metrics
    return quality


def _class_metrics(confusion: NDArray[np.int64], index: int) -> dict[str, float | None]:
    hits, actual, predicted = confusion[index, index], confusion[index].sum(), confusion[:, index].sum()
    return {
        "recall": float(hits / actual) if actual else None,
        "precision": float(hits / predicted) if predicted else None,
        "records": int(actual),
    }
