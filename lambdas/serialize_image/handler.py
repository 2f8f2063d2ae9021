"""Lambda `serialize_image`: reads one image from S3 and hands it on as base64 text.

Event: {"image_data": "", "s3_bucket": B, "s3_key": K} and optionally threshold, threshold_version, inference_id.
Answer: {"statusCode": 200, "body": {"image_data", "s3_bucket", "s3_key", "inferences": [], ...the optional ones}}.
Errors, by class name: MalformedEventError, MissingKeyError, ImageNotFoundError, ImageAccessDeniedError,
NotAnImageError, ImageTooLargeError; StorageUnavailableError is the one that a retry may cure.
"""

from __future__ import annotations

from typing import Any

from lambdas.common import log, s3_client, s3_errors, unwrap
from lambdas.serialize_image.core import (
    MAX_IMAGE_BYTES,
    ImageAccessDeniedError,
    ImageNotFoundError,
    check_image,
    check_size,
    object_location,
    serialized,
)


def read_image(s3: Any, bucket: str, key: str) -> bytes:
    """Return the bytes of an object, without reading one that is too large."""
    named = {404: ImageNotFoundError, 403: ImageAccessDeniedError}
    with s3_errors(f"{key!r} in bucket {bucket!r}", named):
        answer = s3.get_object(Bucket=bucket, Key=key)
        with answer["Body"] as stream:
            check_size(answer["ContentLength"], key)
            content: bytes = stream.read(MAX_IMAGE_BYTES + 1)
    check_size(len(content), key)
    return content


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Entry point."""
    data = unwrap(event)
    bucket, key = object_location(data)
    content = read_image(s3_client(), bucket, key)
    check_image(content, key)
    log("serialize_image", s3_bucket=bucket, s3_key=key, bytes=len(content))
    return serialized(data, bucket, key, content)
