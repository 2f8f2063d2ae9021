"""Lambda `record_result`: writes the outcome of one image of a Distributed Map to S3, from inside the item.

Event: {"execution_arn", "item": {"s3_bucket", "s3_key", "batch_id", "threshold", "threshold_version", "answer":
{"body": what the last function that succeeded answered}, and "failure": {"Error", "Cause"} unless all did}}.
Writes s3://<s3_bucket>/batches/<batch_id>/items/<SHA-256 of s3_key>.json; writing it again changes nothing.
Answer: {"statusCode": 200, "body": {"outcome", "error", "cause"}}.
Errors, by class name: MalformedItemError, RecordAccessDeniedError; a retry may cure StorageUnavailableError.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from .core import RecordAccessDeniedError, StorageUnavailableError, item_of, record, record_key

_CONFIG = Config(connect_timeout=5, read_timeout=10, retries={"mode": "adaptive", "total_max_attempts": 3})
_client: Any = None


def _s3() -> Any:
    """The S3 client, made once per execution environment."""
    global _client
    if _client is None:
        _client = boto3.client("s3", config=_CONFIG)
    return _client


def write_record(s3: Any, bucket: str, key: str, content: dict[str, Any]) -> None:
    """Put one record, replacing an earlier one of the same image."""
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=json.dumps(content).encode(), ContentType="application/json")
    except ClientError as error:
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == 403:
            raise RecordAccessDeniedError(f"Writing s3://{bucket}/{key} was refused: {error}") from error
        if status >= 500 or status == 429 or code in {"SlowDown", "RequestTimeout"}:
            raise StorageUnavailableError(f"S3 answered {code} ({status}) for {key!r}") from error
        raise
    except (BotoCoreError, OSError) as error:
        raise StorageUnavailableError(f"S3 could not be written for {key!r}: {error}") from error


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Entry point."""
    item, content = item_of(event), record(event)
    write_record(_s3(), item["s3_bucket"], record_key(item["batch_id"], item["s3_key"]), content)
    line = {"function": "record_result", "s3_key": item["s3_key"], "outcome": content["outcome"]}
    sys.stdout.write(json.dumps(line) + "\n")
    return {"statusCode": 200, "body": {field: content[field] for field in ("outcome", "error", "cause")}}
