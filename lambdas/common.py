"""What the workflow's functions share; packed beside each of them."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as BotoConnectionError

# Failures on the way to a service. Other errors of botocore (no credentials, a parameter that cannot be) are permanent.
UNREACHABLE = (BotoConnectionError, HTTPClientError, IncompleteReadError, ConnectionError, TimeoutError)


# The largest body InvokeEndpoint takes.
MAX_IMAGE_BYTES = 6 * 1024 * 1024

# What botocore lets pass as a name. An ARN passes too, and would be looked for under a host that isn't there.
_BUCKET_NAME = re.compile(r"[A-Za-z0-9._-]{3,255}")
_KEY_BYTES = 1024


class MalformedEventError(ValueError):
    """The event is not a JSON object."""


class MissingKeyError(ValueError):
    """`s3_bucket` or `s3_key` is absent, empty or no text."""


class InvalidLocationError(ValueError):
    """`s3_bucket` is no bucket's bare name, or `s3_key` is longer than S3 allows."""


class ImageNotFoundError(LookupError):
    """S3 has no such object."""


class ImageAccessDeniedError(PermissionError):
    """The function's role may not read the object."""


class ImageArchivedError(ValueError):
    """The object lies in an archive (GLACIER, DEEP_ARCHIVE) and must be restored before it can be read."""


class ImageChangedError(RuntimeError):
    """The object was overwritten while its execution ran."""


class ImageTooLargeError(ValueError):
    """The image is larger than the endpoint takes."""


class NotAnImageError(ValueError):
    """The data is neither a PNG nor a JPEG, or not a whole one."""


class MalformedInferencesError(ValueError):
    """The endpoint's answer is not a list of probabilities."""


class StorageUnavailableError(RuntimeError):
    """S3 throttled, failed or could not be reached: worth another try."""


_READING: dict[Any, tuple[type[Exception], str]] = {
    "InvalidObjectState": (ImageArchivedError, "It is archived: restore it, or copy it to the class STANDARD."),
    403: (ImageAccessDeniedError, "The function's role may read the stack's bucket only."),
    404: (ImageNotFoundError, "Keys are taken as they are, blanks and slashes included."),
    412: (ImageChangedError, "It was overwritten meanwhile: start the execution again."),
}


def parsed(text: str | bytes) -> Any:
    """Return what JSON text says.

    Raises:
        ValueError: it is no JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def is_number(value: object) -> bool:
    """Tell whether a value of JSON can be calculated with: no NaN, no infinity, no integer that no float holds."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def unwrap(event: Any) -> dict[str, Any]:
    """Return the workflow's data from an event that may wrap it in `Payload` or `body`, as an object or JSON text.

    Raises:
        MalformedEventError: there is no JSON object inside.
    """
    data = event
    while True:
        if isinstance(data, str):
            try:
                data = parsed(data)
            except ValueError as error:
                raise MalformedEventError(f"The event holds text that is not JSON: {data[:80]!r}") from error
        if not isinstance(data, dict):
            raise MalformedEventError(f"The event must be a JSON object, got {type(data).__name__}")
        inner = data.get("Payload", data.get("body"))
        if inner is None:
            return data
        data = inner


def object_location(data: dict[str, Any]) -> tuple[str, str]:
    """Return (bucket, key) of the image.

    Raises:
        MissingKeyError: either is absent, empty or no text.
        InvalidLocationError: S3 can have no such bucket or key.
    """
    for field in ("s3_bucket", "s3_key"):
        value = data.get(field)
        if not isinstance(value, str) or not value:
            raise MissingKeyError(f"The event needs {field!r} as non-empty text, got {value!r}")
    bucket, key = data["s3_bucket"], data["s3_key"]
    if not _BUCKET_NAME.fullmatch(bucket):
        raise InvalidLocationError(f"'s3_bucket' must be a bucket's bare name, as 'photographs'; got {bucket!r}")
    try:
        fits = len(key.encode()) <= _KEY_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        fits = False
    if not fits:
        raise InvalidLocationError(f"'s3_key' must be at most {_KEY_BYTES} bytes of UTF-8, got {key[:80]!r}")
    return bucket, key


def read_image(s3: Any, bucket: str, key: str, **conditions: str) -> tuple[bytes, str]:
    """Return an object's bytes and its ETag, without reading one that is too large for the endpoint.

    Args:
        conditions: further arguments of GetObject, as IfMatch.

    Raises:
        ImageNotFoundError, ImageAccessDeniedError, ImageArchivedError, ImageChangedError, ImageTooLargeError,
        StorageUnavailableError.
    """
    what = f"{key!r} in bucket {bucket!r}"
    with s3_errors(what, _READING):
        answer = s3.get_object(Bucket=bucket, Key=key, **conditions)
        with answer["Body"] as stream:
            size = answer["ContentLength"]
            if size > MAX_IMAGE_BYTES:
                raise ImageTooLargeError(
                    f"{what} has {size:,} bytes; the endpoint takes at most {MAX_IMAGE_BYTES:,}. Store a smaller "
                    "version of the image, as a JPEG or with fewer pixels: the model scales it down anyway."
                )
            return stream.read(), answer["ETag"]


@cache
def s3_client() -> Any:
    """The S3 client, made once per execution environment."""
    retries = {"mode": "adaptive", "total_max_attempts": 3}
    return boto3.client("s3", config=Config(connect_timeout=5, read_timeout=10, retries=retries))


@contextmanager
def s3_errors(what: str, named: Mapping[Any, tuple[type[Exception], str]]) -> Iterator[None]:
    """Give each failure of S3 inside the block its name.

    Args:
        what: the object in words, for the messages.
        named: (error, advice) by S3's code or HTTP status; a permanent failure not in it keeps its own name.

    Raises:
        StorageUnavailableError: another try may help.
    """
    try:
        yield
    except ClientError as error:
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status >= 500 or status == 429 or code in {"SlowDown", "RequestTimeout"}:
            raise StorageUnavailableError(f"S3 answered {code} ({status}) for {what}") from error
        if found := named.get(code) or named.get(status):
            named_error, advice = found
            raise named_error(f"S3 answered {code} ({status}) for {what}. {advice}") from error
        raise
    except UNREACHABLE as error:
        raise StorageUnavailableError(f"S3 could not be reached for {what}: {error}") from error


def log(function: str, **fields: Any) -> None:
    """Write one line of JSON to the function's log."""
    sys.stdout.write(json.dumps({"function": function, **fields}) + "\n")
