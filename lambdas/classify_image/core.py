"""What `classify_image` decides without AWS: the request to the endpoint, its answer, and what an error means."""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import quote

from lambdas.common import MalformedInferencesError, NotAnImageError, is_number, parsed

INFERENCE_ID_CHARACTERS = 64
CUSTOM_ATTRIBUTES_CHARACTERS = 1024

_CONTENT_TYPES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


class MissingImageDataError(ValueError):
    """`image_data` is absent or not base64 text, and there is no `image_etag` to read the image by."""


class InvalidInferenceIdError(ValueError):
    """`inference_id` is not ASCII text of at most 64 characters."""


class EndpointNotConfiguredError(RuntimeError):
    """The function's ENDPOINT_NAME is not set."""


class EndpointNotFoundError(LookupError):
    """SageMaker has no endpoint of that name."""


class EndpointAccessDeniedError(PermissionError):
    """The function's role may not invoke the endpoint."""


class ModelRefusedImageError(ValueError):
    """The model answered that it cannot use this image."""


class EndpointNotReadyError(RuntimeError):
    """The endpoint is still loading its model: worth another try."""


class EndpointThrottledError(RuntimeError):
    """The endpoint takes no more requests for now: worth another try."""


class EndpointUnavailableError(RuntimeError):
    """The endpoint failed, hung or could not be reached: worth another try."""


class ModelUnavailableError(RuntimeError):
    """The model's container failed: worth another try."""


def inline_image(data: dict[str, Any]) -> bytes:
    """Return the image out of the event.

    Raises:
        MissingImageDataError: there is none, or it is not base64.
    """
    text = data.get("image_data")
    if not isinstance(text, str) or not text:
        raise MissingImageDataError(
            f"The event needs 'image_data' as base64 text, or 'image_etag', got {type(text).__name__}"
        )
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MissingImageDataError(f"'image_data' of {data.get('s3_key')!r} is not base64: {error}") from error


def image_etag(data: dict[str, Any]) -> str | None:
    """Return the ETag of an image that is referred to, or None for one that is in the event."""
    etag = data.get("image_etag")
    return etag if isinstance(etag, str) and etag and not data.get("image_data") else None


def content_type(image: bytes, s3_key: object) -> str:
    """Return image/png or image/jpeg, told by the first bytes.

    Raises:
        NotAnImageError: they are of neither.
    """
    for magic, name in _CONTENT_TYPES.items():
        if image.startswith(magic):
            return name
    raise NotAnImageError(f"The data of {s3_key!r} starts with {image[:8].hex(' ')}, which is neither PNG nor JPEG")


def invocation(data: dict[str, Any], image: bytes, endpoint_name: str) -> dict[str, Any]:
    """Return the arguments of InvokeEndpoint for this image.

    CustomAttributes carry the quoted key, so that the endpoint's captured data can be traced back to the photograph;
    a key too long for them is left out.
    """
    s3_key = data.get("s3_key")
    request: dict[str, Any] = {
        "EndpointName": endpoint_name,
        "ContentType": content_type(image, s3_key),
        "Accept": "application/json",
        "Body": image,
    }
    inference_id = data.get("inference_id")
    if inference_id is not None:
        if (
            not isinstance(inference_id, str)
            or not inference_id.isascii()
            or not inference_id.isprintable()
            or not 1 <= len(inference_id) <= INFERENCE_ID_CHARACTERS
        ):
            raise InvalidInferenceIdError(
                f"'inference_id' must be 1 to {INFERENCE_ID_CHARACTERS} printable ASCII characters, "
                f"got {inference_id!r}"
            )
        request["InferenceId"] = inference_id
    if isinstance(s3_key, str) and s3_key:
        quoted = quote(s3_key, safe="/", errors="surrogatepass")
        if len(quoted) <= CUSTOM_ATTRIBUTES_CHARACTERS:
            request["CustomAttributes"] = quoted
    return request


def inferences(answer: bytes) -> list[float]:
    """Return the class probabilities of an endpoint's answer, e.g. b"[0.98, 0.02]".

    Raises:
        MalformedInferencesError: the answer is anything else.
    """
    try:
        values = parsed(answer)
    except ValueError as error:
        raise MalformedInferencesError(f"The endpoint's answer is not JSON: {answer[:200]!r}") from error
    if isinstance(values, dict):
        values = values.get("prediction")
    if not isinstance(values, list) or not values:
        raise MalformedInferencesError(f"The endpoint's answer is not a list of probabilities: {answer[:200]!r}")
    if not all(is_number(value) for value in values):
        raise MalformedInferencesError(f"The endpoint's answer holds something other than numbers: {answer[:200]!r}")
    return [float(value) for value in values]


def endpoint_error(endpoint_name: str, code: str, message: str, status: int, model_status: int | None) -> Exception:
    """Return the named error for what InvokeEndpoint answered.

    Args:
        code: AWS error code, e.g. "ModelError".
        status: HTTP status of the answer.
        model_status: `OriginalStatusCode` of a ModelError, the HTTP status of the model's own container.
    """
    about = f"Endpoint {endpoint_name!r}: {code} ({status}): {message}"
    if code == "ModelNotReadyException":
        return EndpointNotReadyError(about)
    if code == "ModelError":
        refused = model_status is not None and 400 <= model_status < 500 and model_status not in {408, 429}
        return ModelRefusedImageError(about) if refused else ModelUnavailableError(about)
    if status == 429 or "Throttl" in code:
        return EndpointThrottledError(about)
    if status >= 500:
        return EndpointUnavailableError(about)
    if status == 403:
        return EndpointAccessDeniedError(about)
    if code in {"ValidationError", "ValidationException"} and "not found" in message.lower():
        return EndpointNotFoundError(
            f"{about} Run the DAG train_and_deploy, or set the stack's parameter EndpointName to one that exists."
        )
    return ModelRefusedImageError(about)


def classified(data: dict[str, Any], probabilities: list[float], variant: str | None) -> dict[str, Any]:
    """Return the function's answer: the event without the image, with the probabilities."""
    body = {key: value for key, value in data.items() if key not in {"image_data", "image_etag"}}
    body.update(inferences=probabilities, invoked_production_variant=variant)
    return {"statusCode": 200, "body": body}
