"""Rows of results: their columns, and the figures of a whole batch gathered row by row in constant memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scones.batch.outcomes import CLASSIFIED, FAILED, OUTCOMES, REJECTED, WITHOUT_ANSWER

# Column -> Parquet type; the order is that of the files.
COLUMNS = {
    "batch_id": "string",
    "key": "string",
    "item_id": "string",
    "etag": "string",
    "label": "int32",
    "label_class": "string",
    "outcome": "string",
    "predicted_index": "int32",
    "predicted_class": "string",
    "confidence": "double",
    "probabilities": "list<double>",
    "correct": "bool",
    "threshold": "double",
    "threshold_version": "int32",
    "error": "string",
    "message": "string",
    "failed_state": "string",
    "attempt": "int32",
    "execution_arn": "string",
    "inference_id": "string",
    "production_variant": "string",
    "endpoint_name": "string",
    "endpoint_config": "string",
    "model_name": "string",
    "model_package": "string",
    "started_at": "string",
    "ended_at": "string",
    "seconds": "double",
}
CALIBRATION_BINS = 10
CAUSES_NAMED = 3
MESSAGE_SHOWN = 160
_CAUSES_KEPT = 1000


class BatchLimitError(RuntimeError):
    """More failures or rejections than the run's limits allow; the message is the summary."""


class Summary:
    """Figures of a batch. Accuracy, confusion and calibration are over rows with a label and an answer.

    ``accuracy`` is over classified images only (what the couriers act on); ``accuracy_before_threshold`` also counts
    the rejected ones, as if they had been let through.
    """

    def __init__(self, classes: Sequence[str] = ()) -> None:
        self.classes = list(classes)
        self.outcomes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.causes: Counter[tuple[str, str]] = Counter()
        self.by_class: dict[str, Counter[str]] = {}
        self._confusion: Counter[tuple[int, int]] = Counter()
        self._labelled: Counter[str] = Counter()
        self._correct: Counter[str] = Counter()
        self._bins = [[0, 0.0, 0] for _ in range(CALIBRATION_BINS)]
        self._first: str | None = None
        self._last: str | None = None
        self._seconds = 0.0
        self._timed = 0

    @property
    def images(self) -> int:
        return sum(self.outcomes.values())

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one row of results into account."""
        outcome = row["outcome"]
        self.outcomes[outcome] += 1
        if outcome in WITHOUT_ANSWER:
            self._add_cause(row)
        if row.get("predicted_class"):
            self.by_class.setdefault(row["predicted_class"], Counter())[outcome] += 1
        self._add_times(row)
        index, label = row.get("predicted_index"), row.get("label")
        if index is None or label is None:
            return
        correct = int(index == label)
        self._labelled[outcome] += 1
        self._correct[outcome] += correct
        if outcome == CLASSIFIED:
            self._confusion[label, index] += 1
        cell = self._bins[min(CALIBRATION_BINS - 1, int(row["confidence"] * CALIBRATION_BINS))]
        cell[0] += 1
        cell[1] += row["confidence"]
        cell[2] += correct

    def _add_cause(self, row: Mapping[str, Any]) -> None:
        message = (row.get("message") or "").replace(row["key"], "<key>").splitlines()
        cause = (row.get("error") or row["outcome"], message[0][:MESSAGE_SHOWN] if message else "")
        if cause in self.causes or len(self.causes) < _CAUSES_KEPT:
            self.causes[cause] += 1
        else:
            self.causes[(cause[0], "")] += 1

    def _add_times(self, row: Mapping[str, Any]) -> None:
        started, ended = row.get("started_at"), row.get("ended_at")
        if started and ended:
            self._first = min(self._first or started, started)
            self._last = max(self._last or ended, ended)
        if row.get("seconds") is not None:
            self._seconds += row["seconds"]
            self._timed += 1

    def most_frequent_causes(self, number: int = CAUSES_NAMED) -> list[dict[str, Any]]:
        """Return the causes of what got no answer, most frequent first; same error with differing text counts apart."""
        return [
            {"error": error, "message": message, "images": count}
            for (error, message), count in self.causes.most_common(number)
        ]

    def figures(self) -> dict[str, Any]:
        """Return everything counted, as JSON types; a share is None where there is nothing to divide by."""
        answered = self.outcomes[CLASSIFIED] + self.outcomes[REJECTED]
        without = sum(self.outcomes[outcome] for outcome in WITHOUT_ANSWER)
        return {
            "images": self.images,
            **{outcome: self.outcomes[outcome] for outcome in OUTCOMES},
            "accuracy": _share(self._correct[CLASSIFIED], self._labelled[CLASSIFIED]),
            "accuracy_before_threshold": _share(sum(self._correct.values()), sum(self._labelled.values())),
            "labelled": sum(self._labelled.values()),
            "rejected_share": _share(self.outcomes[REJECTED], answered),
            "failed_share": _share(without, self.images),
            "by_class": {name: dict(counts) for name, counts in sorted(self.by_class.items())},
            "confusion_matrix": self.confusion(),
            "calibration": self.calibration(),
            "most_frequent_causes": self.most_frequent_causes(),
            "execution_seconds_mean": round(self._seconds / self._timed, 3) if self._timed else None,
            "first_started_at": self._first,
            "last_ended_at": self._last,
        }

    def confusion(self) -> dict[str, dict[str, int]]:
        """Return ``{true class: {predicted class: images}}`` of classified images with a label."""
        size = max([len(self.classes), *(max(pair) + 1 for pair in self._confusion)], default=0)
        names = self.classes + [str(index) for index in range(len(self.classes), size)]
        if not self._confusion:
            return {}
        return {
            names[true]: {names[guess]: self._confusion[true, guess] for guess in range(size)} for true in range(size)
        }

    def calibration(self) -> dict[str, Any]:
        """Return reliability bins (confidence against accuracy, answered images with a label) and the ECE over them."""
        total = sum(int(cell[0]) for cell in self._bins)
        bins, error = [], 0.0
        for position, (count, confidence, correct) in enumerate(self._bins):
            if not count:
                continue
            bins.append(
                {
                    "from": position / CALIBRATION_BINS,
                    "to": (position + 1) / CALIBRATION_BINS,
                    "images": int(count),
                    "confidence": round(confidence / count, 4),
                    "accuracy": round(correct / count, 4),
                }
            )
            error += abs(confidence - correct) / total
        return {"bins": bins, "expected_calibration_error": round(error, 4) if total else None}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def check_limits(figures: Mapping[str, Any], *, max_failed_share: float, max_rejected_share: float) -> None:
    """Hold a batch against its limits: failed, timed out and aborted of all images; rejected of those answered.

    Raises:
        BatchLimitError: a limit is exceeded; the message counts the outcomes and names the most frequent causes.
    """
    problems = []
    failed, rejected = figures["failed_share"] or 0.0, figures["rejected_share"] or 0.0
    if failed > max_failed_share:
        problems.append(f"{failed:.1%} of the images got no answer; max_failed_share allows {max_failed_share:.1%}")
    if rejected > max_rejected_share:
        problems.append(
            f"{rejected:.1%} of the answers are rejections; max_rejected_share allows {max_rejected_share:.1%}"
        )
    if problems:
        raise BatchLimitError(". ".join([*problems, describe(figures)]))


def describe(figures: Mapping[str, Any]) -> str:
    """Return the figures as one readable paragraph, with the most frequent causes."""
    counts = ", ".join(f"{figures[outcome]} {outcome.replace('_', ' ')}" for outcome in OUTCOMES)
    text = f"{figures['images']} images: {counts}"
    if figures.get("accuracy") is not None:
        text += f"; accuracy {figures['accuracy']:.3f}"
    causes = figures.get("most_frequent_causes") or []
    if causes:
        named = "; ".join(
            f"{cause['images']} x {cause['error']}" + (f" ({cause['message']})" if cause["message"] else "")
            for cause in causes
        )
        text += f". Most frequent causes: {named}"
    if figures.get(FAILED):
        text += ". Run the failed ones again with the param rerun_failed_of"
    return text


def merge_parts(parts: Iterable[Iterable[Mapping[str, Any]]], classes: Sequence[str]) -> Summary:
    """Summarise the rows of all parts."""
    summary = Summary(classes)
    for rows in parts:
        for row in rows:
            summary.add(row)
    return summary
