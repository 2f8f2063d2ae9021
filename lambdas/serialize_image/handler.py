"""Lambda `serialize_image`: reads one image from S3 and hands it on as base64 text.

Event: {"image_data": "", "s3_bucket": B, "s3_key": K} and optionally threshold, threshold_version, inference_id.
Answer: {"statusCode": 200, "body": {"image_data", "s3_bucket", "s3_key", "inferences": [], ...the optional ones}}.
Errors, by class name: MalformedEventError, MissingKeyError, ImageNotFoundError, ImageAccessDeniedError,
NotAnImageError, ImageTooLargeError; StorageUnavailableError is the one that a retry may cure.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from .core import (
    MAX_IMAGE_BYTES,
    ImageAccessDeniedError,
    ImageNotFoundError,
    StorageUnavailableError,
    check_image,
    check_size,
    object_location,
    serialized,
    unwrap,
)

_CONFIG = Config(connect_timeout=5, read_timeout=10, retries={"mode": "adaptive", "total_max_attempts": 3})
_client: Any = None


def _s3() -> Any:
    """The S3 client, made once per execution environment."""
    global _client
    if _client is None:
        _client = boto3.client("s3", config=_CONFIG)
    return _client


def read_image(s3: Any, bucket: str, key: str) -> bytes:
    """Return the bytes of an object, without reading one that is too large."""
    try:
        answer = s3.get_object(Bucket=bucket, Key=key)
        with answer["Body"] as stream:
            check_size(answer["ContentLength"], key)
            content: bytes = stream.read(MAX_IMAGE_BYTES + 1)
    except ClientError as error:
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        if code in {"NoSuchKey", "NoSuchBucket", "404"}:
            raise ImageNotFoundError(f"There is no object {key!r} in bucket {bucket!r} ({code})") from error
        if status == 403:
            raise ImageAccessDeniedError(f"Reading {key!r} in bucket {bucket!r} was refused: {error}") from error
        if status >= 500 or status == 429 or code in {"SlowDown", "RequestTimeout"}:
            raise StorageUnavailableError(f"S3 answered {code} ({status}) for {key!r}") from error
        raise
    except (BotoCoreError, OSError) as error:
        raise StorageUnavailableError(f"S3 could not be read for {key!r}: {error}") from error
    check_size(len(content), key)
    return content


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Entry point."""
    data = unwrap(event)
    bucket, key = object_location(data)
    content = read_image(_s3(), bucket, key)
    check_image(content, key)
    line = {"function": "serialize_image", "s3_bucket": bucket, "s3_key": key, "bytes": len(content)}
    sys.stdout.write(json.dumps(line) + "\n")
    return serialized(data, bucket, key, content)
