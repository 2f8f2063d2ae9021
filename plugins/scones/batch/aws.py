"""Step Functions as the batch engine sees it (one attempt per call, errors sorted by what to do), and the endpoint."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence, Set
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from scones.aws.errors import THROTTLING_CODES, code_of, is_transient
from scones.batch.engine import (
    ExecutionExistsError,
    ExecutionGoneError,
    NotRunningError,
    ThrottledError,
    TransientError,
    TransportError,
    WorkflowTransport,
)
from scones.batch.inputs import BatchInputError
from scones.batch.items import DEADLINE_ERROR, RUNNING, Execution
from scones.batch.plan import ChunkRequest, Plan
from scones.batch.watch import Sight
from scones.training.served import ServedClassesError, ServedModel

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    from scones.batch.store import BatchStore

log = logging.getLogger(__name__)

# ExecutionLimitExceeded: a million executions run already; one that ends makes room.
THROTTLE_CODES = THROTTLING_CODES | {"ExecutionLimitExceeded"}
CONNECTIONS_MAX = 256
LIST_PAGE = 1000
HISTORY_TAIL = 25


@contextmanager
def sorted_errors(*, known_machine: bool = False) -> Iterator[None]:
    """Turn botocore's errors into the engine's.

    Args:
        known_machine: the state machine has answered before: if it is gone, its stack is being deployed again.
    """
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        code = code_of(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) if code else 0
        if code in THROTTLE_CODES or status == 429:
            raise ThrottledError(str(error)) from error
        if code == "ExecutionAlreadyExists":
            raise ExecutionExistsError(str(error)) from error
        if code == "ExecutionDoesNotExist":
            raise ExecutionGoneError(str(error)) from error
        passes = is_transient(error) or (known_machine and code == "StateMachineDoesNotExist")
        raise (TransientError if passes else TransportError)(str(error)) from error


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


def hook_for(request: ChunkRequest, service: str) -> AwsBaseHook:
    """Return Airflow's connection to a service, as the request has it."""
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    return AwsBaseHook(
        aws_conn_id=request.aws_conn_id,
        client_type=service,
        region_name=request.region_name,
        verify=request.verify,
        config=request.botocore_config,
    )


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


def execution_arn(state_machine_arn: str, name: str) -> str:
    """Return the ARN that a standard execution of that name has, known before it is started."""
    head, separator, machine = state_machine_arn.partition(":stateMachine:")
    if not separator:
        raise ValueError(f"{state_machine_arn!r} is not the ARN of a state machine")
    return f"{head}:execution:{machine.split(':')[0]}:{name}"


class StandardExecutions:
    """Executions of a standard state machine (implements ``WorkflowTransport``)."""

    def __init__(self, client: Any, state_machine_arn: str) -> None:
        self._client, self._machine, self._known = client, state_machine_arn, False

    def arn_of(self, name: str) -> str:
        return execution_arn(self._machine, name)

    async def start(self, name: str, workflow_input: str) -> Execution:
        with sorted_errors(known_machine=self._known):
            answer = await self._client.start_execution(stateMachineArn=self._machine, name=name, input=workflow_input)
        self._known = True
        return _execution(answer, status=RUNNING)

    async def describe(self, arn: str) -> Execution:
        with sorted_errors():
            return _execution(await self._client.describe_execution(executionArn=arn))

    async def running(self, at_most: int) -> Set[str] | None:
        found: set[str] = set()
        token: dict[str, str] = {}
        while True:
            with sorted_errors(known_machine=self._known):
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
        try:
            with sorted_errors():
                await self._client.stop_execution(executionArn=arn, error=error, cause=cause)
        except TransportError as refused:
            if refused.__cause__ and code_of(refused.__cause__) == "ValidationException":
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
        self._known = False

    def arn_of(self, name: str) -> str:
        return execution_arn(self._machine, name).replace(":execution:", ":express:", 1)

    async def start(self, name: str, workflow_input: str) -> Execution:
        try:
            with sorted_errors(known_machine=self._known):
                answer = await asyncio.wait_for(
                    self._client.start_sync_execution(stateMachineArn=self._machine, name=name, input=workflow_input),
                    self._deadline_s,
                )
        except TimeoutError:
            cause = f"No answer {self._deadline_s:g} s after its start"
            return Execution(self.arn_of(name), "ABORTED", workflow_input, error=DEADLINE_ERROR, cause=cause)
        self._known = True
        return _execution(answer)

    async def describe(self, arn: str) -> Execution:
        raise ExecutionGoneError(f"{arn}: express executions cannot be described")

    async def running(self, at_most: int) -> Set[str] | None:
        return set()

    async def stop(self, arn: str, error: str, cause: str) -> None:
        raise NotRunningError(f"{arn}: express executions cannot be stopped")

    async def failed_state(self, arn: str) -> str | None:
        return None


@asynccontextmanager
async def workflow_transport(request: ChunkRequest, plan: Plan) -> AsyncIterator[WorkflowTransport]:
    """Open the calls to the batch's state machine."""
    hook = hook_for(request, "stepfunctions")
    express = plan.fan_out == "express"
    options: dict[str, Any] = {
        # The engine paces and repeats by itself: a retry inside botocore would hide the throttling from it.
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "max_pool_connections": min(CONNECTIONS_MAX, request.concurrency + 8),
        "connect_timeout": 10,
        "read_timeout": plan.deadline_s + 10 if express else 60,
    }
    if express and await asyncio.to_thread(hook.conn_config.get_service_endpoint_url, "stepfunctions"):
        # "sync-" goes before AWS's own host name; an endpoint_url given by the connection is an address as it is.
        options["inject_host_prefix"] = False
    async with async_client(hook, **options) as client:
        machine = plan.state_machine_arn
        yield ExpressExecutions(client, machine, plan.deadline_s) if express else StandardExecutions(client, machine)


# ---- the endpoint behind the workflow

SERVING = ("InService", "Updating", "SystemUpdating", "RollingBack")


class EndpointNotServingError(RuntimeError):
    """The endpoint does not exist or does not answer; the message says what to do."""


def served_model(endpoint_name: str, store: BatchStore, classes: Sequence[str]) -> ServedModel:
    """Return what answers now: noted in every row, and checked before thousands of executions start.

    Args:
        classes: class names that a person gave, for a model whose lineage names none.

    Raises:
        EndpointNotServingError: the endpoint is absent, still being created, or failed.
        BatchInputError: the lineage names other classes than ``classes``.
    """
    from scones.training.aws import read_served_model
    from scones.training.registry import ModelRegistryHook

    hook = ModelRegistryHook()
    endpoint = hook.endpoint(endpoint_name)
    try:
        model = read_served_model(endpoint_name, store, hook, classes)
    except ServedClassesError as error:
        raise BatchInputError(str(error)) from error
    if endpoint is None or model is None:
        raise EndpointNotServingError(f"There is no endpoint {endpoint_name!r}: run the DAG train_and_deploy first.")
    if endpoint["EndpointStatus"] not in SERVING:
        reason = endpoint.get("FailureReason")
        raise EndpointNotServingError(
            f"Endpoint {endpoint_name!r} is {endpoint['EndpointStatus']}{f' ({reason})' if reason else ''} and answers"
            " nothing: wait until it is InService, or run train_and_deploy or rollback_endpoint."
        )
    return model


def endpoint_price(endpoint_name: str) -> tuple[float | None, bool]:
    """Return the list price of an endpoint, as it is now, for an hour (None when nobody knows), and whether AWS runs
    it."""
    from scones.aws.sagemaker import SageMakerResourcesHook
    from scones.jobs.links import has_console
    from scones.training.costs import HOURS_PER_MONTH, monthly_cost

    hook = SageMakerResourcesHook()
    monthly = None
    try:
        endpoint = hook.endpoint(endpoint_name)
        config = hook.endpoint_config(endpoint["EndpointConfigName"]) if endpoint else None
        monthly = monthly_cost(endpoint, config) if endpoint and config else None
    except (BotoCoreError, ClientError) as error:
        log.warning("What endpoint %s costs is not known: %s", endpoint_name, error)
    return None if monthly is None else monthly / HOURS_PER_MONTH, has_console(hook.conn_client_meta.endpoint_url)


class EndpointEye:
    """Looks at the endpoint of a batch that is under way. Blocking: for a thread."""

    def __init__(self, request: ChunkRequest, plan: Plan) -> None:
        self._request, self._plan = request, plan
        self._client: Any = None

    def look(self, known: ServedModel) -> Sight | None:
        """Return what is served now; None, with a warning, when that cannot be said.

        Args:
            known: what was served at the last look; its lineage is not read again.
        """
        from scones.batch.store import BatchStore
        from scones.training.aws import read_served_model
        from scones.training.registry import ModelRegistryHook

        request, model = self._request, known
        try:
            self._client = self._client or hook_for(request, "sagemaker").conn
            endpoint = self._client.describe_endpoint(EndpointName=known.endpoint_name)
            if endpoint.get("EndpointConfigName") != known.endpoint_config:
                found = read_served_model(
                    known.endpoint_name,
                    BatchStore(request.bucket, request.aws_conn_id),
                    ModelRegistryHook(aws_conn_id=request.aws_conn_id),
                    self._plan.params.get("classes") or (),
                )
                model = found or ServedModel(known.endpoint_name)
        except (BotoCoreError, ClientError, ServedClassesError) as error:
            log.warning("What endpoint %s serves cannot be said: %s", known.endpoint_name, error)
            return None
        return Sight(time.time(), model, "PendingDeploymentSummary" in endpoint)
