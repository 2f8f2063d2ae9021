"""The figures of a whole batch, gathered row by row in constant memory, and what becomes of them: limits and words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict

from scones.batch.costs import BatchCost, batch_cost
from scones.batch.items import ABORTED, CLASSIFIED, FAILED, OUTCOMES, REJECTED, TIMED_OUT, WITHOUT_ANSWER, Row
from scones.batch.plan import Plan

CALIBRATION_BINS = 10
CAUSES_NAMED = 3
MESSAGE_SHOWN = 160
_CAUSES_KEPT = 1000


class Cause(TypedDict):
    """Why so many images got no answer."""

    error: str
    message: str
    images: int


class Figures(TypedDict):
    """What is counted. A share is None where there is nothing to divide by.

    Accuracy, confusion and calibration are over rows with a label and an answer. ``accuracy`` is over classified
    images only (what the couriers act on); ``accuracy_before_threshold`` also counts the rejected ones, as if they had
    been let through. ``confusion_matrix`` is ``{true class: {predicted class: images}}`` of the classified.
    """

    images: int
    classified: int
    rejected: int
    failed: int
    timed_out: int
    aborted: int
    accuracy: float | None
    accuracy_before_threshold: float | None
    labelled: int
    rejected_share: float | None
    failed_share: float | None
    by_class: dict[str, dict[str, int]]
    confusion_matrix: dict[str, dict[str, int]]
    calibration: dict[str, Any]
    most_frequent_causes: list[Cause]
    endpoint_changed: int
    execution_seconds_mean: float | None
    first_started_at: str | None
    last_ended_at: str | None


class Limits(TypedDict):
    """The shares of failures and rejections above which a run fails."""

    max_failed_share: float
    max_rejected_share: float


class BatchSummary(Figures):
    """`summary.json`: the plan's facts, the figures, and where the files are. ``seconds`` is from first start to last
    end of an execution."""

    batch_id: str
    created_at: str
    source: str
    fan_out: str
    threshold: float
    threshold_version: int | None
    model: dict[str, Any]
    classes: list[str]
    counts: dict[str, int]
    warnings: list[str]
    limits: Limits
    cost: BatchCost
    seconds: float | None
    images_per_second: float | None
    summary_uri: str
    report_uri: str
    results_uri: str
    rejected_uri: str


class BatchLimitError(RuntimeError):
    """More failures or rejections than the run's limits allow; the message is the summary."""


class Summary:
    """Counts rows as they stream by."""

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
        self._changed = 0

    @property
    def images(self) -> int:
        return sum(self.outcomes.values())

    def add(self, row: Row) -> None:
        """Take one row of results into account."""
        outcome = row["outcome"]
        self.outcomes[outcome] += 1
        self._changed += row.get("endpoint_changed", False)
        if outcome in WITHOUT_ANSWER:
            self._add_cause(row)
        if row["predicted_class"]:
            self.by_class.setdefault(row["predicted_class"], Counter())[outcome] += 1
        self._add_times(row)
        index, label, confidence = row["predicted_index"], row["label"], row["confidence"]
        if index is None or label is None or confidence is None or row["correct"] is None:
            return
        correct = int(row["correct"])
        self._labelled[outcome] += 1
        self._correct[outcome] += correct
        if outcome == CLASSIFIED:
            self._confusion[label, index] += 1
        cell = self._bins[min(CALIBRATION_BINS - 1, int(confidence * CALIBRATION_BINS))]
        cell[0] += 1
        cell[1] += confidence
        cell[2] += correct

    def _add_cause(self, row: Row) -> None:
        message = (row.get("message") or "").replace(row["key"], "<key>").splitlines()
        cause = (row.get("error") or row["outcome"], message[0][:MESSAGE_SHOWN] if message else "")
        if cause in self.causes or len(self.causes) < _CAUSES_KEPT:
            self.causes[cause] += 1
        else:
            self.causes[(cause[0], "")] += 1

    def _add_times(self, row: Row) -> None:
        started, ended, seconds = row["started_at"], row["ended_at"], row["seconds"]
        if started and ended:
            self._first = min(self._first or started, started)
            self._last = max(self._last or ended, ended)
        if seconds is not None:
            self._seconds += seconds
            self._timed += 1

    def most_frequent_causes(self) -> list[Cause]:
        """Return the causes of what got no answer, most frequent first; same error with differing text counts apart."""
        return [
            {"error": error, "message": message, "images": count}
            for (error, message), count in self.causes.most_common(CAUSES_NAMED)
        ]

    def figures(self) -> Figures:
        """Return everything counted, as JSON types."""
        answered = self.outcomes[CLASSIFIED] + self.outcomes[REJECTED]
        without = sum(self.outcomes[outcome] for outcome in WITHOUT_ANSWER)
        return {
            "images": self.images,
            "classified": self.outcomes[CLASSIFIED],
            "rejected": self.outcomes[REJECTED],
            "failed": self.outcomes[FAILED],
            "timed_out": self.outcomes[TIMED_OUT],
            "aborted": self.outcomes[ABORTED],
            "accuracy": _share(self._correct[CLASSIFIED], self._labelled[CLASSIFIED]),
            "accuracy_before_threshold": _share(sum(self._correct.values()), sum(self._labelled.values())),
            "labelled": sum(self._labelled.values()),
            "rejected_share": _share(self.outcomes[REJECTED], answered),
            "failed_share": _share(without, self.images),
            "by_class": {name: dict(counts) for name, counts in sorted(self.by_class.items())},
            "confusion_matrix": self.confusion(),
            "calibration": self.calibration(),
            "most_frequent_causes": self.most_frequent_causes(),
            "endpoint_changed": self._changed,
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


def summarise(
    plan: Plan, figures: Figures, uris: Mapping[str, str], hourly: float | None = None, *, on_aws: bool = False
) -> BatchSummary:
    """Join the plan's facts, the figures and the addresses of the files.

    Args:
        hourly: list price of the endpoint for an hour, USD; None when nobody knows.
        on_aws: whether it is AWS that runs it.
    """
    first, last = figures["first_started_at"], figures["last_ended_at"]
    seconds = None
    if first and last:
        seconds = round((datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds(), 3)
    images, mean = figures["images"], figures["execution_seconds_mean"]
    executions = None if mean is None else images * mean
    return {
        **figures,
        "cost": batch_cost(plan.fan_out, images, executions, seconds, hourly, on_aws=on_aws),
        "batch_id": plan.batch_id,
        "created_at": plan.created_at,
        "source": plan.source,
        "fan_out": plan.fan_out,
        "threshold": plan.threshold.value,
        "threshold_version": plan.threshold.version,
        "model": plan.model.as_dict(),
        "classes": list(plan.model.classes),
        "counts": plan.counts,
        "warnings": plan.warnings,
        "limits": {
            "max_failed_share": plan.params["max_failed_share"],
            "max_rejected_share": plan.params["max_rejected_share"],
        },
        "seconds": seconds,
        "images_per_second": round(figures["images"] / seconds, 2) if seconds else None,
        "summary_uri": uris["summary_uri"],
        "report_uri": uris["report_uri"],
        "results_uri": uris["results_uri"],
        "rejected_uri": uris["rejected_uri"],
    }


def limits_exceeded(figures: Figures, *, max_failed_share: float, max_rejected_share: float) -> list[str]:
    """Hold a batch against its limits: failed, timed out and aborted of all images; rejected of those answered."""
    problems = []
    failed, rejected = figures["failed_share"] or 0.0, figures["rejected_share"] or 0.0
    if failed > max_failed_share:
        problems.append(f"{failed:.1%} of the images got no answer; max_failed_share allows {max_failed_share:.1%}")
    if rejected > max_rejected_share:
        problems.append(
            f"{rejected:.1%} of the answers are rejections; max_rejected_share allows {max_rejected_share:.1%}"
        )
    return problems


def check_limits(figures: Figures, *, max_failed_share: float, max_rejected_share: float) -> None:
    """Refuse a batch that exceeds a limit.

    Raises:
        BatchLimitError: a limit is exceeded; the message counts the outcomes and names the most frequent causes.
    """
    problems = limits_exceeded(figures, max_failed_share=max_failed_share, max_rejected_share=max_rejected_share)
    if problems:
        raise BatchLimitError(". ".join([*problems, describe(figures)]))


def outcome_counts(figures: Figures) -> dict[str, int]:
    """Return how many images had each outcome."""
    found: Mapping[str, Any] = figures
    return {outcome: found[outcome] for outcome in OUTCOMES}


def headline(figures: Figures) -> str:
    """Return the outcomes as one sentence, without its full stop."""
    text = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in outcome_counts(figures).items())
    accuracy = "" if figures["accuracy"] is None else f"; accuracy {figures['accuracy']:.3f}"
    return f"{figures['images']} images: {text}{accuracy}"


def describe(figures: Figures) -> str:
    """Return the figures as one readable paragraph, with the most frequent causes."""
    text = headline(figures)
    if figures["most_frequent_causes"]:
        named = "; ".join(
            f"{cause['images']} x {cause['error']}" + (f" ({cause['message']})" if cause["message"] else "")
            for cause in figures["most_frequent_causes"]
        )
        text += f". Most frequent causes: {named}"
    if figures["failed"]:
        text += ". Run the failed ones again with the param rerun_failed_of"
    return text
