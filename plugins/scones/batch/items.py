"""One image of a batch, from its key to its row: item, names, workflow input, execution, ending, row of results.

Every form an image takes on its way is defined here, and nowhere else.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict, get_args, get_type_hints

from scones.aws import layout
from scones.training.served import ServedModel

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
RUNNING = "RUNNING"
# What an emulator that was killed says of an execution it had running: nothing about the image.
RESTARTED_ERROR = "States.ServiceRestart"

# ---- names: the same again for every retry, and legal for any image key


def execution_name(batch_id: str, item_id: str, attempt: int) -> str:
    """Return the Step Functions execution name of one image's attempt: at most 80 of ``[A-Za-z0-9-]``.

    The key is hashed (96 bits): keys may hold spaces, unicode, ``+`` or 1,000 characters, names may not.
    """
    if attempt < 1:
        raise ValueError(f"attempt counts from 1, got {attempt}")
    digest = hashlib.sha256(item_id.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    return f"{batch_id}-{digest}-{attempt}"


def inference_id(batch_id: str, item_id: str) -> str:
    """Return the InferenceId (32 ASCII characters) that joins captured data to a row of results."""
    return hashlib.sha256(f"{batch_id}\n{item_id}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


# ---- in: an item and the workflow input made of it


@dataclass(frozen=True, slots=True)
class Item:
    """An image of a batch.

    Attributes:
        key: its S3 key.
        label: class index, where it is known.
        etag: S3 ETag when it was listed; tells a changed image from one already scored.
        origin: the test image that it is or was made from; such an image never trains.
        item_id: what makes it one item of the batch; the key, unless a key is sent more than once on purpose.
    """

    key: str
    label: int | None = None
    etag: str | None = None
    item_id: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "item_id", self.item_id or self.key)

    def to_json(self) -> str:
        """Return the item's line of a chunk file; the Distributed Map reads its ``s3_key`` as well."""
        record: dict[str, Any] = {"s3_key": self.key}
        if self.label is not None:
            record["label"] = self.label
        if self.etag:
            record["etag"] = self.etag
        if self.item_id != self.key:
            record["id"] = self.item_id
        if self.origin:
            record["origin"] = self.origin
        return json.dumps(record, ensure_ascii=True)

    @classmethod
    def from_json(cls, line: str) -> Item:
        """Read a line of a chunk file."""
        record = json.loads(line)
        return cls(
            record["s3_key"], record.get("label"), record.get("etag"), record.get("id", ""), record.get("origin", "")
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """An image that was listed or named, and may become an item. Date, bytes and storage class are a listing's."""

    item: Item
    modified: datetime | None = None
    size: int | None = None
    storage_class: str = ""


def read_items(lines: Iterable[str]) -> Iterator[Item]:
    """Read a chunk file."""
    return (Item.from_json(line) for line in lines if line.strip())


@dataclass(frozen=True, slots=True)
class Threshold:
    """The confidence that a batch is judged by, and its version where it is the deployed one."""

    value: float
    version: int | None = None


def workflow_input(item: Item, *, batch_id: str, bucket: str, threshold: Threshold) -> str:
    """Return the input of the inference workflow for ``item``; byte for byte the same at every retry.

    The threshold travels along, so that one batch is judged by one threshold even if it is changed meanwhile.
    """
    event: dict[str, Any] = {
        "image_data": "",
        "s3_bucket": bucket,
        "s3_key": item.key,
        "inference_id": inference_id(batch_id, item.item_id),
        "threshold": threshold.value,
    }
    if threshold.version is not None:
        event["threshold_version"] = threshold.version
    return json.dumps(event, ensure_ascii=True, sort_keys=True)


# ---- out: how its execution ended, and the row of results


@dataclass(frozen=True, slots=True)
class Execution:
    """What DescribeExecution tells. Times are seconds since the epoch."""

    arn: str
    status: str
    input: str | None = None
    output: str | None = None
    error: str | None = None
    cause: str | None = None
    started_at: float | None = None
    stopped_at: float | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """An item, the attempt that counted, and how its execution ended."""

    item: Item
    attempt: int
    execution: Execution
    failed_state: str | None = None


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """What all rows of a batch have in common."""

    batch_id: str
    model: ServedModel


class Row(TypedDict):
    """One image's row of results. Its fields are the columns of the files, in their order; times are ISO, UTC."""

    batch_id: str
    key: str
    item_id: str
    etag: str | None
    label: int | None
    label_class: str | None
    outcome: str
    predicted_index: int | None
    predicted_class: str | None
    confidence: float | None
    probabilities: list[float] | None
    correct: bool | None
    threshold: float | None
    threshold_version: int | None
    error: str | None
    message: str | None
    failed_state: str | None
    attempt: int
    execution_arn: str
    inference_id: str
    production_variant: str | None
    endpoint_name: str
    endpoint_config: str | None
    model_name: str | None
    model_package: str | None
    model_version: int | None
    endpoint_changed: bool
    origin: str | None
    started_at: str | None
    ended_at: str | None
    seconds: float | None


COLUMNS: dict[str, Any] = get_type_hints(Row)


def is_rejection(error: str | None) -> bool:
    """Whether an execution's error is the business outcome "not sure enough" rather than a failure."""
    return error == REJECTION_ERROR


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
    raise ValueError(f"{execution.arn} is {execution.status}: it has no outcome yet")


def result_row(ending: Ending, facts: BatchFacts) -> Row:
    """Return the row of results of one image."""
    item, execution, model = ending.item, ending.execution, facts.model
    outcome = classify(execution)
    error, message = execution.error, read_cause(execution.cause)[1]
    answer: Mapping[str, Any] = {}
    if outcome == CLASSIFIED:
        answer = _document(execution.output)
    elif outcome == REJECTED:
        answer = _document(message)
    elif execution.status == "SUCCEEDED":
        error, message = "NoInferencesInOutput", "The workflow succeeded without inferences in its output"
    probabilities = _probabilities(answer)
    index = max(range(len(probabilities)), key=probabilities.__getitem__) if probabilities else None
    started, stopped = execution.started_at, execution.stopped_at
    return {
        "batch_id": facts.batch_id,
        "key": item.key,
        "item_id": item.item_id,
        "etag": item.etag,
        "label": item.label,
        "label_class": None if item.label is None else model.class_name(item.label),
        "outcome": outcome,
        "predicted_index": index,
        "predicted_class": None if index is None else model.class_name(index),
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
        "inference_id": inference_id(facts.batch_id, item.item_id),
        "production_variant": answer.get("invoked_production_variant"),
        "endpoint_name": model.endpoint_name,
        "endpoint_config": model.endpoint_config or None,
        "model_name": model.model_name or None,
        "model_package": model.package_arn or None,
        "model_version": model.version,
        "endpoint_changed": False,
        "origin": item.origin or layout.test_image_behind(item.key, None) or None,
        "started_at": _iso(started),
        "ended_at": _iso(stopped),
        "seconds": None if started is None or stopped is None else round(stopped - started, 3),
    }


def read_cause(cause: str | None) -> tuple[str | None, str | None]:
    """Return (error type, message) of an execution's cause: Lambda's error JSON, or any other text as the message."""
    if not cause:
        return None, None
    document = _parsed(cause)
    if not isinstance(document, dict) or "errorMessage" not in document:
        return None, cause
    return document.get("errorType"), str(document["errorMessage"])


def _parsed(text: str) -> Any:
    """Return what JSON text says; None for what is no JSON, or nested too deeply to be read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _document(text: str | None) -> dict[str, Any]:
    """Read a JSON object that may be wrapped: Lambda's ``body`` and JSON inside JSON, as older workflows answer."""
    value: Any = text
    for _ in range(4):
        if isinstance(value, str):
            value = _parsed(value)
        elif isinstance(value, dict) and "body" in value and "inferences" not in value:
            value = value["body"]
        else:
            break
    return value if isinstance(value, dict) else {}


def _probabilities(document: Mapping[str, Any]) -> list[float] | None:
    values = document.get("inferences")
    if isinstance(values, str):
        values = _parsed(values)
    if not isinstance(values, list):
        return None
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if numbers and all(map(math.isfinite, numbers)) else None


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def to_parquet(rows: Sequence[Row]) -> bytes:
    """Return one part of the results as a Parquet file, with the columns and types of :class:`Row`."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int32(), float: pa.float64(), bool: pa.bool_()}
    kinds[list[float]] = pa.list_(pa.float64())
    # A column of `str | None` is one of `str`: every column may be null.
    schema = pa.schema([(name, kinds.get(kind) or kinds[get_args(kind)[0]]) for name, kind in COLUMNS.items()])
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()
