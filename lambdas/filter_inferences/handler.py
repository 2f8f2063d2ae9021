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

import json
import os
import sys
import time
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from .core import (
    StorageUnavailableError,
    ThresholdNotConfiguredError,
    check_threshold,
    configured_threshold,
    decide,
    probabilities,
    unwrap,
)

THRESHOLD_KEY = "config/threshold.json"
CACHE_SECONDS = 60.0

_CONFIG = Config(connect_timeout=5, read_timeout=10, retries={"mode": "adaptive", "total_max_attempts": 3})
_client: Any = None
_cached: tuple[float, tuple[float, int | None]] | None = None


def _s3() -> Any:
    """The S3 client, made once per execution environment."""
    global _client
    if _client is None:
        _client = boto3.client("s3", config=_CONFIG)
    return _client


def read_threshold(s3: Any, bucket: str) -> tuple[float, int | None]:
    """Return (threshold, version) as configured in the bucket."""
    source = f"s3://{bucket}/{THRESHOLD_KEY}"
    try:
        with s3.get_object(Bucket=bucket, Key=THRESHOLD_KEY)["Body"] as stream:
            document: bytes = stream.read()
    except ClientError as error:
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status >= 500 or status == 429 or code in {"SlowDown", "RequestTimeout"}:
            raise StorageUnavailableError(f"S3 answered {code} ({status}) for {source}") from error
        raise ThresholdNotConfiguredError(
            f"{source} cannot be read ({code}). Deploy the stack again, which writes it, or put 'threshold' into the"
            " event."
        ) from error
    except (BotoCoreError, OSError) as error:
        raise StorageUnavailableError(f"S3 could not be read for {source}: {error}") from error
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
        _cached = (now, read_threshold(_s3(), bucket))
    return _cached[1]


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Entry point."""
    data = unwrap(event)
    values = probabilities(data)
    threshold, version = threshold_for(data)
    passed = max(values) >= threshold
    line = {"function": "filter_inferences", "s3_key": data.get("s3_key"), "passed": passed, "threshold": threshold}
    sys.stdout.write(json.dumps(line) + "\n")
    return decide(data, values, threshold, version)
