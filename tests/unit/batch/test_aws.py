"""Errors of Step Functions, sorted by what to do about them."""

from __future__ import annotations

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from scones.batch.aws import sorted_errors
from scones.batch.engine import (
    ExecutionExistsError,
    ExecutionGoneError,
    ThrottledError,
    TransientError,
    TransportError,
)


def refusal(code: str, status: int = 400) -> ClientError:
    answer = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "StartExecution")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        # The service is away for a moment: whether it is refused, cut or silent.
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), TransientError),
        (ConnectTimeoutError(endpoint_url="http://127.0.0.1:1"), TransientError),
        (ConnectionClosedError(endpoint_url="http://127.0.0.1:1"), TransientError),
        (ReadTimeoutError(endpoint_url="http://127.0.0.1:1"), TransientError),
        (refusal("InternalFailure", 500), TransientError),
        (refusal("ServiceUnavailable", 503), TransientError),
        (refusal("ThrottlingException"), ThrottledError),
        (refusal("Whatever", 429), ThrottledError),
        (refusal("ExecutionAlreadyExists"), ExecutionExistsError),
        (refusal("ExecutionDoesNotExist"), ExecutionGoneError),
        (refusal("AccessDeniedException"), TransportError),
        (refusal("StateMachineDoesNotExist"), TransportError),
        (NoCredentialsError(), TransportError),
    ],
)
def test_errors_are_sorted_by_what_to_do(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind), sorted_errors():
        raise error
