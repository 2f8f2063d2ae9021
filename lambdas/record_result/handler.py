"""Lambda `record_result`: writes the outcome of one image of a Distributed Map to S3, from inside the item.

Event: {"execution_arn", "item": {"s3_bucket", "s3_key", "batch_id", "threshold", "threshold_version", "answer":
{"body": what the last function that succeeded answered}, and "failure": {"Error", "Cause"} unless all did}}.
Writes s3://<s3_bucket>/batches/<batch_id>/items/<SHA-256 of s3_key>.json; writing it again changes nothing.
Answer: {"statusCode": 200, "body": {"outcome", "error", "cause"}}.
Errors, by class name: MalformedItemError, RecordAccessDeniedError; a retry may cure StorageUnavailableError.
"""

from __future__ import annotations

import json
from typing import Any

from lambdas.common import log, s3_client, s3_errors
from lambdas.record_result.core import RecordAccessDeniedError, item_of, record, record_key


def write_record(s3: Any, bucket: str, key: str, content: dict[str, Any]) -> None:
    """Put one record, replacing an earlier one of the same image."""
    denied = (RecordAccessDeniedError, "The function's role may write to batches/*/items/ of the stack's bucket.")
    with s3_errors(f"the record s3://{bucket}/{key}", {403: denied}):
        s3.put_object(Bucket=bucket, Key=key, Body=json.dumps(content).encode(), ContentType="application/json")


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Entry point."""
    item, content = item_of(event), record(event)
    write_record(s3_client(), item["s3_bucket"], record_key(item["batch_id"], item["s3_key"]), content)
    log("record_result", s3_key=item["s3_key"], outcome=content["outcome"])
    return {"statusCode": 200, "body": {field: content[field] for field in ("outcome", "error", "cause")}}
