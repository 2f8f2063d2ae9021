"""What the workflow's functions share; packed beside each of them."""

from __future__ import annotations

import json
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


class MalformedEventError(ValueError):
    """The event is not a JSON object."""


class NotAnImageError(ValueError):
    """The data is neither a PNG nor a JPEG, or not a whole one."""


class MalformedInferencesError(ValueError):
    """The endpoint's answer is not a list of probabilities."""


class StorageUnavailableError(RuntimeError):
    """S3 throttled, failed or could not be reached: worth another try."""


def unwrap(event: Any) -> dict[str, Any]:
    """Return the workflow's data from an event that may wrap it in `Payload` or `body`, as an object or JSON text.

    Raises:
        MalformedEventError: there is no JSON object inside.
    """
    data = event
    while True:
        if isinstance(data, str):
            try:
                data = json.loads(data)
            except ValueError as error:
                raise MalformedEventError(f"The event holds text that is not JSON: {data[:80]!r}") from error
        if not isinstance(data, dict):
            raise MalformedEventError(f"The event must be a JSON object, got {type(data).__name__}")
        inner = data.get("Payload", data.get("body"))
        if inner is None:
            return data
        data = inner


@cache
def s3_client() -> Any:
    """The S3 client, made once per execution environment."""
    retries = {"mode": "adaptive", "total_max_attempts": 3}
    return boto3.client("s3", config=Config(connect_timeout=5, read_timeout=10, retries=retries))


@contextmanager
def s3_errors(what: str, named: Mapping[Any, type[Exception]]) -> Iterator[None]:
    """Give each failure of S3 inside the block its name.

    Args:
        what: the object in words, for the messages.
        named: error by S3's code or HTTP status; a permanent failure that is not in it keeps its own name.

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
            raise found(f"S3 answered {code} ({status}) for {what}") from error
        raise
    except UNREACHABLE as error:
        raise StorageUnavailableError(f"S3 could not be reached for {what}: {error}") from error


def log(function: str, **fields: Any) -> None:
    """Write one line of JSON to the function's log."""
    sys.stdout.write(json.dumps({"function": function, **fields}) + "\n")
