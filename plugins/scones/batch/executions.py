"""Step Functions as the batch engine sees it: one attempt per call, over aiobotocore, errors sorted by what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Set
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from scones.batch.names import execution_arn
from scones.batch.outcomes import DEADLINE_ERROR
from scones.batch.transport import (
    RUNNING,
    Execution,
    ExecutionExistsError,
    ExecutionGoneError,
    NotRunningError,
    ThrottledError,
    TransientError,
    TransportError,
)

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

THROTTLE_CODES = {
    "ExecutionLimitExceeded",
    "RequestLimitExceeded",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
LIST_PAGE = 1000
HISTORY_TAIL = 25


@contextmanager
def sorted_errors() -> Iterator[None]:
    """Turn botocore's errors into the engine's."""
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in THROTTLE_CODES or status == 429:
            raise ThrottledError(str(error)) from error
        if code == "ExecutionAlreadyExists":
            raise ExecutionExistsError(str(error)) from error
        if code == "ExecutionDoesNotExist":
            raise ExecutionGoneError(str(error)) from error
        if code in {"InternalFailure", "InternalServerError", "ServiceUnavailable"} or status >= 500:
            raise TransientError(str(error)) from error
        raise TransportError(str(error)) from error
    except (HTTPClientError, ConnectionError) as error:
        raise TransientError(str(error)) from error
    except BotoCoreError as error:
        raise TransportError(str(error)) from error


@asynccontextmanager
async def async_client(hook: AwsBaseHook, **options: Any) -> AsyncIterator[Any]:
    """Open an aiobotocore client for ``hook``; ``options`` are merged into the connection's botocore configuration."""
    from asgiref.sync import sync_to_async
    from botocore.config import Config

    def create() -> Any:
        config = hook.config.merge(Config(**options))
        return hook.get_client_type(region_name=hook.region_name, config=config, deferrable=True)

    async with await sync_to_async(create)() as client:
        yield client


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _execution(answer: dict[str, Any], status: str | None = None) -> Execution:
    return Execution(
        arn=answer["executionArn"],
        status=status or answer["status"],
        input=answer.get("input"),
        output=answer.get("output"),
        error=answer.get("error"),
        cause=answer.get("cause"),
        started_at=_seconds(answer.get("startDate")),
        stopped_at=_seconds(answer.get("stopDate")),
    )


class StandardExecutions:
    """Executions of a standard state machine (implements ``WorkflowTransport``)."""

    def __init__(self, client: Any, state_machine_arn: str) -> None:
        self._client, self._machine = client, state_machine_arn

    def arn_of(self, name: str) -> str:
        return execution_arn(self._machine, name)

    async def start(self, name: str, workflow_input: str) -> Execution:
        with sorted_errors():
            answer = await self._client.start_execution(stateMachineArn=self._machine, name=name, input=workflow_input)
        return _execution(answer, status=RUNNING)

    async def describe(self, arn: str) -> Execution:
        with sorted_errors():
            return _execution(await self._client.describe_execution(executionArn=arn))

    async def running(self, at_most: int) -> Set[str] | None:
        found: set[str] = set()
        token: dict[str, str] = {}
        while True:
            with sorted_errors():
                page = await self._client.list_executions(
                    stateMachineArn=self._machine, statusFilter=RUNNING, maxResults=LIST_PAGE, **token
                )
            found.update(entry["executionArn"] for entry in page["executions"])
            if not page.get("nextToken"):
                return found
            if len(found) >= at_most:
                return None
            token = {"nextToken": page["nextToken"]}

    async def stop(self, arn: str, error: str, cause: str) -> None:
        from botocore.exceptions import ClientError

        try:
            with sorted_errors():
                await self._client.stop_execution(executionArn=arn, error=error, cause=cause)
        except TransportError as refused:
            code = getattr(refused.__cause__, "response", {}).get("Error", {}).get("Code")
            if isinstance(refused.__cause__, ClientError) and code == "ValidationException":
                raise NotRunningError(str(refused)) from refused
            raise

    async def failed_state(self, arn: str) -> str | None:
        with sorted_errors():
            history = await self._client.get_execution_history(
                executionArn=arn, reverseOrder=True, maxResults=HISTORY_TAIL, includeExecutionData=False
            )
        for event in history["events"]:
            details = event.get("stateEnteredEventDetails")
            if details:
                return str(details["name"])
        return None


class ExpressExecutions:
    """Executions of an express state machine: started and awaited by one StartSyncExecution each.

    There is nothing to describe, list or stop afterwards, and a name may be used again: what a killed chunk had in
    flight is run once more (at least once), what its checkpoint holds is not.
    """

    def __init__(self, client: Any, state_machine_arn: str, deadline_s: float) -> None:
        self._client, self._machine, self._deadline_s = client, state_machine_arn, deadline_s

    def arn_of(self, name: str) -> str:
        return execution_arn(self._machine, name).replace(":execution:", ":express:", 1)

    async def start(self, name: str, workflow_input: str) -> Execution:
        try:
            with sorted_errors():
                answer = await asyncio.wait_for(
                    self._client.start_sync_execution(stateMachineArn=self._machine, name=name, input=workflow_input),
                    self._deadline_s,
                )
        except TimeoutError:
            cause = f"No answer {self._deadline_s:g} s after its start"
            return Execution(self.arn_of(name), "ABORTED", workflow_input, error=DEADLINE_ERROR, cause=cause)
        return _execution(answer)

    async def describe(self, arn: str) -> Execution:
        raise ExecutionGoneError(f"{arn}: express executions cannot be described")

    async def running(self, at_most: int) -> Set[str] | None:
        return set()

    async def stop(self, arn: str, error: str, cause: str) -> None:
        raise NotRunningError(f"{arn}: express executions cannot be stopped")

    async def failed_state(self, arn: str) -> str | None:
        return None
