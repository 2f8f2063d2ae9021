"""Lambda `serialize_image`: reads one image from S3 and hands it on, as base64 text or, above 180 KiB, by reference.

Event: {"image_data": "", "s3_bucket": B, "s3_key": K} and optionally threshold, threshold_version, inference_id.
Answer: {"statusCode": 200, "body": {"image_data", "s3_bucket", "s3_key", "inferences": [], ...the optional ones}}; of
a larger image `image_data` is "" and `image_etag` is the ETag of the object that was read.
Errors, by class name: MalformedEventError, MissingKeyError, InvalidLocationError, ImageNotFoundError,
ImageAccessDeniedError, ImageArchivedError, ImageTooLargeError, NotAnImageError; StorageUnavailableError is the one that
a retry may cure.
"""

from __future__ import annotations

from typing import Any

from lambdas.common import log, object_location, read_image, s3_client, unwrap
from lambdas.serialize_image.core import check_image, serialized


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Entry point."""
    data = unwrap(event)
    bucket, key = object_location(data)
    content, etag = read_image(s3_client(), bucket, key)
    check_image(content, key)
    log("serialize_image", s3_bucket=bucket, s3_key=key, bytes=len(content))
    return serialized(data, content, etag)
