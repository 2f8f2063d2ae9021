"""Lambda `filter_inferences`: passes a prediction on when its best probability reaches the threshold.

Event: what `classify_image` answers. The threshold is the event's `threshold` (with `threshold_version`), else the
one in s3://BUCKET_NAME/config/threshold.json, read at most once a minute.
Answer: {"statusCode": 200, "body": {...the event, "confidence", "predicted_class_index", "threshold",
"threshold_version"}}.
Below the threshold: THRESHOLD_CONFIDENCE_NOT_MET, whose message is JSON {"s3_key", "inferences", "threshold",
"threshold_version"}. Other errors, by class name: MalformedEventError, MalformedInferencesError, InvalidThresholdError,
ThresholdNotConfiguredError; a retry may cure StorageUnavailableError.
"""

from __future__ import annotations

import os
import time
from typing import Any

from botocore.exceptions import ClientError

from lambdas.common import log, s3_client, s3_errors, unwrap
from lambdas.filter_inferences.core import (
    ThresholdNotConfiguredError,
    check_threshold,
    configured_threshold,
    decide,
    probabilities,
)

THRESHOLD_KEY = "config/threshold.json"
CACHE_SECONDS = 60.0

_cached: tuple[float, tuple[float, int | None]] | None = None


def read_threshold(s3: Any, bucket: str) -> tuple[float, int | None]:
    """Return (threshold, version) as configured in the bucket."""
    source = f"s3://{bucket}/{THRESHOLD_KEY}"
    try:
        with s3_errors(source, {}), s3.get_object(Bucket=bucket, Key=THRESHOLD_KEY)["Body"] as stream:
            document: bytes = stream.read()
    except ClientError as error:
        raise ThresholdNotConfiguredError(
            f"{source} cannot be read ({error}). Deploy the stack again, which writes it, or put 'threshold' into the"
            " event."
        ) from error
    return configured_threshold(document, source)


def threshold_for(data: dict[str, Any]) -> tuple[float, int | None]:
    """Return the event's threshold, or the configured one, which is kept for CACHE_SECONDS."""
    global _cached
    if data.get("threshold") is not None:
        return check_threshold(data["threshold"], data.get("threshold_version"), "the event")
    now = time.monotonic()
    if _cached is None or now - _cached[0] > CACHE_SECONDS:
        bucket = os.environ.get("BUCKET_NAME")
        if not bucket:
            raise ThresholdNotConfiguredError("Set the function's environment variable BUCKET_NAME")
        _cached = (now, read_threshold(s3_client(), bucket))
    return _cached[1]


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Entry point."""
    data = unwrap(event)
    values = probabilities(data)
    threshold, version = threshold_for(data)
    passed = max(values) >= threshold
    log("filter_inferences", s3_key=data.get("s3_key"), passed=passed, threshold=threshold)
    return decide(data, values, threshold, version)
