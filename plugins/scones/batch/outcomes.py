"""What became of one image: the ending of its execution, classified, as a row of results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from scones.batch.items import Item
from scones.batch.names import inference_id
from scones.batch.transport import Execution

CLASSIFIED, REJECTED, FAILED, TIMED_OUT, ABORTED = OUTCOMES = (
    "classified",
    "rejected",
    "failed",
    "timed_out",
    "aborted",
)
# Outcomes in which no answer came: what `rerun_failed_of` runs again.
WITHOUT_ANSWER = (FAILED, TIMED_OUT, ABORTED)

REJECTION_ERROR = "THRESHOLD_CONFIDENCE_NOT_MET"
DEADLINE_ERROR = "ExecutionDeadlineExceeded"
KILLED_ERROR = "BatchKilled"
# What an emulator that was killed says of an execution it had running: nothing about the image.
RESTARTED_ERROR = "States.ServiceRestart"


@dataclass(frozen=True, slots=True)
class Ending:
    """An item, the attempt that counted, and how its execution ended."""

    item: Item
    attempt: int
    execution: Execution
    failed_state: str | None = None


@dataclass(frozen=True)
class BatchFacts:
    """What all rows of a batch have in common.

    Attributes:
        classes: class names in index order; empty when unknown.
        model: where the answers come from: endpoint_name, endpoint_config, model_name, model_package.
    """

    batch_id: str
    bucket: str
    classes: Sequence[str] = ()
    model: Mapping[str, str | None] = field(default_factory=dict)


def is_rejection(error: str | None) -> bool:
    """Whether an execution's error is the business outcome "not sure enough" rather than a failure."""
    return error == REJECTION_ERROR


def read_cause(cause: str | None) -> tuple[str | None, str | None]:
    """Return (error type, message) of an execution's cause: Lambda's error JSON, or any other text as the message."""
    if not cause:
        return None, None
    try:
        document = json.loads(cause)
    except ValueError:
        return None, cause
    if not isinstance(document, dict) or "errorMessage" not in document:
        return None, cause
    return document.get("errorType"), str(document["errorMessage"])


def _document(text: str | None) -> dict[str, Any]:
    """Read a JSON object that may be wrapped: Lambda's ``body`` and JSON inside JSON, as older workflows answer."""
    value: Any = text
    for _ in range(4):
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                return {}
        elif isinstance(value, dict) and "body" in value and "inferences" not in value:
            value = value["body"]
        else:
            break
    return value if isinstance(value, dict) else {}


def _probabilities(document: Mapping[str, Any]) -> list[float] | None:
    values = document.get("inferences")
    if isinstance(values, str):
        try:
            values = json.loads(values)
        except ValueError:
            return None
    if not isinstance(values, list) or not values:
        return None
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError):
        return None


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def classify(execution: Execution) -> str:
    """Return the outcome of a finished execution.

    Raises:
        ValueError: the execution has not finished, or its status is unknown.
    """
    if execution.status == "SUCCEEDED":
        return CLASSIFIED if _probabilities(_document(execution.output)) else FAILED
    if execution.status == "FAILED":
        return REJECTED if is_rejection(execution.error) else FAILED
    if execution.status == "TIMED_OUT":
        return TIMED_OUT
    if execution.status == "ABORTED":
        return TIMED_OUT if execution.error == DEADLINE_ERROR else ABORTED
    raise ValueError(f"Execution {execution.arn} has not ended: its status is {execution.status}")


def result_row(ending: Ending, facts: BatchFacts) -> dict[str, Any]:
    """Return the row of results of one image; the columns are those of :data:`scones.batch.results.COLUMNS`."""
    item, execution = ending.item, ending.execution
    outcome = classify(execution)
    error, message = execution.error, read_cause(execution.cause)[1]
    answer: dict[str, Any] = {}
    if outcome == CLASSIFIED:
        answer = _document(execution.output)
    elif outcome == REJECTED:
        answer = _document(message)
    elif execution.status == "SUCCEEDED":
        error, message = "NoInferencesInOutput", "The workflow succeeded without inferences in its output"
    probabilities = _probabilities(answer)
    index = max(range(len(probabilities)), key=probabilities.__getitem__) if probabilities else None
    classes = facts.classes
    return {
        "batch_id": facts.batch_id,
        "key": item.key,
        "item_id": item.identity,
        "etag": item.etag,
        "label": item.label,
        "label_class": _class_name(classes, item.label),
        "outcome": outcome,
        "predicted_index": index,
        "predicted_class": _class_name(classes, index),
        "confidence": probabilities[index] if probabilities and index is not None else None,
        "probabilities": probabilities,
        "correct": None if item.label is None or index is None else index == item.label,
        "threshold": answer.get("threshold"),
        "threshold_version": answer.get("threshold_version"),
        "error": error,
        "message": message if outcome != REJECTED else None,
        "failed_state": ending.failed_state,
        "attempt": ending.attempt,
        "execution_arn": execution.arn,
        "inference_id": inference_id(facts.batch_id, item.identity),
        "production_variant": answer.get("invoked_production_variant"),
        **{name: facts.model.get(name) for name in ("endpoint_name", "endpoint_config", "model_name", "model_package")},
        "started_at": _iso(execution.started_at),
        "ended_at": _iso(execution.stopped_at),
        "seconds": (
            round(execution.stopped_at - execution.started_at, 3)
            if execution.started_at is not None and execution.stopped_at is not None
            else None
        ),
    }


def _class_name(classes: Sequence[str], index: int | None) -> str | None:
    return classes[index] if index is not None and 0 <= index < len(classes) else None
