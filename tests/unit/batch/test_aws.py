"""Errors of Step Functions, sorted by what to do about them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from scones.batch.aws import ExpressExecutions, StandardExecutions, sorted_errors
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


class Client:
    """Step Functions with one state machine, which may be gone."""

    def __init__(self) -> None:
        self.there = True

    async def start_execution(self, **_: Any) -> dict[str, Any]:
        if not self.there:
            raise refusal("StateMachineDoesNotExist")
        return {"executionArn": "arn", "startDate": datetime.now(UTC)}

    async def start_sync_execution(self, **_: Any) -> dict[str, Any]:
        return {**await self.start_execution(), "status": "SUCCEEDED"}


@pytest.mark.parametrize("express", [False, True])
def test_a_machine_that_took_executions_is_waited_for_while_its_stack_is_deployed_again(express: bool) -> None:
    async def starts() -> None:
        machine, client = "arn:aws:states:r:a:stateMachine:m", Client()
        executions: Any = ExpressExecutions(client, machine, 60) if express else StandardExecutions(client, machine)
        client.there = False
        with pytest.raises(TransportError):
            await executions.start("one", "{}")
        client.there = True
        await executions.start("two", "{}")
        client.there = False
        with pytest.raises(TransientError):
            await executions.start("three", "{}")

    asyncio.run(starts())
