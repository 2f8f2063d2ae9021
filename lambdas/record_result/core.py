"""What `record_result` decides without AWS: which outcome an item of the Distributed Map had, and its record."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from lambdas.common import is_number, parsed

REJECTED = "THRESHOLD_CONFIDENCE_NOT_MET"

_BATCH_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]{0,127}")


class MalformedItemError(ValueError):
    """The event lacks what a record needs."""


class RecordAccessDeniedError(PermissionError):
    """The function's role may not write the record."""


def record_key(batch_id: str, s3_key: str) -> str:
    """Return where the record of one image lies; the same image always has the same key, so a retry overwrites it."""
    return f"batches/{batch_id}/items/{hashlib.sha256(s3_key.encode(errors='surrogatepass')).hexdigest()}.json"


def item_of(event: Any) -> dict[str, Any]:
    """Return the event's item.

    Raises:
        MalformedItemError: no object, or without s3_bucket, s3_key and a usable batch_id.
    """
    item = event.get("item") if isinstance(event, dict) else None
    if not isinstance(item, dict):
        raise MalformedItemError("The event needs 'item', the state's data, as an object")
    for field in ("s3_bucket", "s3_key", "batch_id"):
        if not isinstance(item.get(field), str) or not item[field]:
            raise MalformedItemError(f"The item needs {field!r} as non-empty text, got {item.get(field)!r}")
    if not _BATCH_ID.fullmatch(item["batch_id"]):
        raise MalformedItemError(f"'batch_id' may hold letters, digits and . _ = - only, got {item['batch_id']!r}")
    return item


def _rejection(cause: str) -> dict[str, Any]:
    """Return the JSON that THRESHOLD_CONFIDENCE_NOT_MET carries, out of the Lambda error that wraps it."""
    try:
        decided = parsed(parsed(cause)["errorMessage"])
    except (KeyError, TypeError, ValueError):
        return {}
    return decided if isinstance(decided, dict) else {}


def record(event: dict[str, Any]) -> dict[str, Any]:
    """Return the record of one item: classified, rejected or failed, every field present.

    Args:
        event: {"execution_arn", "item"}; the item holds s3_bucket, s3_key, batch_id, threshold, threshold_version and
            `answer` ({"body": what the last function that succeeded answered}) and, unless all did, `failure`
            ({"Error", "Cause"} as caught).
    """
    item = item_of(event)
    failure = item.get("failure")
    result: dict[str, Any] = (item.get("answer") or {}).get("body") or {}
    error = cause = None
    if failure is None:
        outcome = "classified"
    else:
        error, cause = str(failure.get("Error", "")), str(failure.get("Cause", ""))
        outcome = "rejected" if error == REJECTED else "failed"
        result = {**result, **_rejection(cause)} if outcome == "rejected" else result
    inferences = result.get("inferences")
    if not (isinstance(inferences, list) and inferences and all(is_number(value) for value in inferences)):
        inferences = None
    confidence = max(inferences) if inferences else None
    return {
        "s3_key": item["s3_key"],
        "outcome": outcome,
        "inferences": inferences,
        "confidence": confidence,
        "predicted_class_index": inferences.index(confidence) if inferences else None,
        "threshold": result.get("threshold", item.get("threshold")),
        "threshold_version": result.get("threshold_version", item.get("threshold_version")),
        "error": error,
        "cause": cause,
        "execution_arn": event.get("execution_arn"),
        "invoked_production_variant": result.get("invoked_production_variant"),
    }
