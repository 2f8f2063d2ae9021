"""What an AWS error means for us: gone, worth another try, or final."""

from __future__ import annotations

import re

from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as BotoConnectionError

NOT_FOUND_CODES = frozenset({"ValidationException", "ResourceNotFound", "ResourceNotFoundException"})
# GetObject names the code; HeadObject has no body to name one in, so botocore gives the status.
ABSENT_OBJECT_CODES = frozenset({"NoSuchKey", "NotFound", "404"})
TRANSIENT_CODES = frozenset(
    {
        "ThrottlingException",
        "Throttling",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "ProvisionedThroughputExceededException",
        "SlowDown",
        "InternalFailure",
        "InternalServerError",
        "InternalError",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "RequestTimeout",
    }
)
THROTTLING_CODES = frozenset(
    {"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded", "SlowDown"}
)
_ABSENT = re.compile(r"could not find|cannot find|does not exist|not found", re.IGNORECASE)
_ALREADY_THERE = re.compile(r"already exist", re.IGNORECASE)


def code_of(error: BaseException) -> str:
    """Return the AWS error code, or an empty string for an error that has none."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def is_transient(error: BaseException) -> bool:
    """Return whether the same call may succeed a little later: lost connections, throttling, faults of the service."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return code_of(error) in TRANSIENT_CODES or status >= 500
    # What else botocore raises (no credentials, a bucket name that cannot be one) stays as it is. aiobotocore lets
    # a broken connection through as OSError.
    return isinstance(error, BotoConnectionError | HTTPClientError | IncompleteReadError | OSError)


def not_found(error: BaseException) -> bool:
    """Return whether a describe's error says that the thing does not exist (SageMaker says ValidationException)."""
    return code_of(error) in NOT_FOUND_CODES


def is_absent_object(error: BaseException) -> bool:
    """Return whether S3 says that there is no such object. A refusal (AccessDenied) says nothing of the kind."""
    return code_of(error) in ABSENT_OBJECT_CODES


def is_absent(error: BaseException) -> bool:
    """Return whether a delete's error says that the thing is already gone, rather than still in use."""
    return not_found(error) and _ABSENT.search(str(error)) is not None


def already_there(error: BaseException) -> bool:
    """Return whether a create's error says that the name is taken."""
    return code_of(error) in {"ValidationException", "ResourceInUse", "ConflictException"} and (
        code_of(error) == "ResourceInUse" or _ALREADY_THERE.search(str(error)) is not None
    )
