"""Lambda `classify_image`: asks the SageMaker endpoint what is in the image.

Event: what `serialize_image` answers: with `image_data` as base64 text, or with `image_etag`, the ETag of the object
`s3_key` in `s3_bucket`, which is then read from there. The endpoint is the one named by ENDPOINT_NAME;
ENDPOINT_READ_TIMEOUT (seconds, default 65) is how long one try waits for its answer.
Answer: {"statusCode": 200, "body": {...the event without image_data and image_etag, "inferences": [p0, p1, ...],
"invoked_production_variant"}}.
Errors, by class name: MalformedEventError, MissingImageDataError, NotAnImageError, InvalidInferenceIdError,
EndpointNotConfiguredError, EndpointNotFoundError, EndpointAccessDeniedError, ModelRefusedImageError,
MalformedInferencesError; for an image by reference those of `serialize_image` and ImageChangedError. A retry may cure
EndpointNotReadyError, EndpointThrottledError, EndpointUnavailableError, ModelUnavailableError and
StorageUnavailableError.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from lambdas.classify_image.core import (
    EndpointNotConfiguredError,
    EndpointUnavailableError,
    classified,
    endpoint_error,
    image_etag,
    inferences,
    inline_image,
    invocation,
)
from lambdas.common import UNREACHABLE, log, object_location, read_image, s3_client, unwrap

# A real-time endpoint must answer within 60 s; two tries and the waits between them stay below the function's timeout.
_CONFIG = Config(
    connect_timeout=5,
    read_timeout=float(os.environ.get("ENDPOINT_READ_TIMEOUT", "65")),
    retries={"mode": "adaptive", "total_max_attempts": 2},
)


@cache
def runtime_client() -> Any:
    """The SageMaker Runtime client, made once per execution environment."""
    return boto3.client("sagemaker-runtime", config=_CONFIG)


def invoke(runtime: Any, request: dict[str, Any]) -> tuple[bytes, str | None]:
    """Call the endpoint. Returns the answer's body and the name of the production variant that gave it."""
    name = request["EndpointName"]
    try:
        answer = runtime.invoke_endpoint(**request)
        return answer["Body"].read(), answer.get("InvokedProductionVariant")
    except ClientError as error:
        details = error.response["Error"]
        raise endpoint_error(
            name,
            details.get("Code", "Unknown"),
            details.get("Message", ""),
            error.response["ResponseMetadata"]["HTTPStatusCode"],
            error.response.get("OriginalStatusCode"),
        ) from error
    except UNREACHABLE as error:
        raise EndpointUnavailableError(f"Endpoint {name!r} could not be reached: {error}") from error


def image_of(data: dict[str, Any]) -> bytes:
    """Return the image that the event carries, or the very one it refers to."""
    etag = image_etag(data)
    if etag is None:
        return inline_image(data)
    return read_image(s3_client(), *object_location(data), IfMatch=etag)[0]


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Entry point."""
    name = os.environ.get("ENDPOINT_NAME")
    if not name:
        raise EndpointNotConfiguredError("Set the function's environment variable ENDPOINT_NAME")
    data = unwrap(event)
    answer, variant = invoke(runtime_client(), invocation(data, image_of(data), name))
    probabilities = inferences(answer)
    log("classify_image", s3_key=data.get("s3_key"), inferences=probabilities)
    return classified(data, probabilities, variant)
