"""Waiting for SageMaker jobs and endpoints in the triggerer.

Own triggers, because those of provider 9.39: forget what the operator knows about deadlines, poll at one fixed pace
(30 s), stop nothing when the task is killed (Airflow 3.3 has `BaseTrigger.on_kill`), give up at the first lost
connection, and sleep one second per line of the training log. Until the provider's triggers do all five.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from botocore.exceptions import BotoCoreError, ClientError

from scones.aws.errors import is_transient, not_found
from scones.jobs.cancellation import cancellable, to_the_end
from scones.jobs.states import KINDS, Waited, poll_delay

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

TRAINING_LOG_GROUP = "/aws/sagemaker/TrainingJobs"
# How long the API may be unreachable (a restart, a broken network) before the wait gives up.
OUTAGE_TOLERANCE_S = 300.0
GONE = "Gone"


class SageMakerWaitTrigger(BaseTrigger):
    """Wait until a job or an endpoint ends its work; fire one event that says how.

    The event: ``{"kind", "name", "status": "success"|"failed"|"timeout"|"error", "state", "message"}``; ``state`` is
    SageMaker's own, or "Gone" when there is no such thing (any more).

    Args:
        kind: one of `scones.jobs.states.KINDS`.
        name: of the job or endpoint.
        deadline: Unix time in seconds after which the wait ends with "timeout". An absolute time, so that a restarted
            triggerer does not start the clock again.
        carry: JSON that the operator wants back in the event's ``carry`` (`dag.test` of Airflow 3.3 loses the kwargs
            of a deferral).
        stop_on_kill: stop the job when a user fails, clears or marks the task, and when the deadline has passed.
        aws_conn_id, region_name, verify, botocore_config: as given to the operator; all four are serialised.
    """

    def __init__(
        self,
        *,
        kind: str,
        name: str,
        deadline: float,
        stop_on_kill: bool = True,
        carry: dict[str, Any] | None = None,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.kind, self.name, self.deadline = kind, name, deadline
        self.stop_on_kill, self.carry = stop_on_kill, carry or {}
        self.connection: dict[str, Any] = {
            "aws_conn_id": aws_conn_id,
            "region_name": region_name,
            "verify": verify,
            "botocore_config": botocore_config,
        }

    @property
    def waited(self) -> Waited:
        """How this kind of thing is described, and which states end it."""
        return KINDS[self.kind]

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and every argument."""
        own = {name: getattr(self, name) for name in ("kind", "name", "deadline", "stop_on_kill", "carry")}
        return f"{type(self).__module__}.{type(self).__qualname__}", own | self.connection

    def hook(self, client_type: str = "sagemaker") -> AwsBaseHook:
        """Return the hook whose clients this trigger uses."""
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

        arguments = dict(self.connection)
        return AwsBaseHook(config=arguments.pop("botocore_config"), client_type=client_type, **arguments)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until an ending state, the deadline, or a fault that waiting does not cure."""
        yield TriggerEvent(await cancellable(self._run()))

    async def _run(self) -> dict[str, Any]:
        try:
            async with AsyncExitStack() as self._clients:
                return await self._wait(await self._client())
        except (ClientError, BotoCoreError, OSError) as error:
            return self._event("error", "", f"{type(error).__name__}: {error}")

    async def _client(self, client_type: str = "sagemaker") -> Any:
        return await self._clients.enter_async_context(await self.hook(client_type).get_async_conn())

    async def on_kill(self) -> None:
        """Stop the job: a user failed, cleared or marked the deferred task, so nobody waits for it any more."""
        if not (self.stop_on_kill and self.waited.stop):
            self.log.info("The %s %s goes on without this task", self.kind, self.name)
            return
        await to_the_end(self._stop_now())

    async def _stop_now(self) -> None:
        async with await self.hook().get_async_conn() as client:
            await self._stop(client)

    async def _wait(self, client: Any) -> dict[str, Any]:
        polls, last_state, unreachable_since = 0, "", None
        while True:
            try:
                description = await self._describe(client)
                unreachable_since = None
            except (ClientError, BotoCoreError, OSError) as error:
                if not is_transient(error):
                    raise
                unreachable_since = unreachable_since or time.monotonic()
                if time.monotonic() - unreachable_since > OUTAGE_TOLERANCE_S:
                    raise
                self.log.warning("Cannot see %s %s for the moment: %s", self.kind, self.name, error)
            else:
                state = GONE if description is None else str(description[self.waited.status])
                if state != last_state:
                    self.log.info("%s %s is %s", self.kind.capitalize(), self.name, state)
                    last_state = state
                await self.progress(description)
                if description is None:
                    return self._event("failed", GONE, f"There is no {self.kind} {self.name}")
                if state in self.waited.ended:
                    await self.finish()
                    outcome = "success" if state in self.waited.succeeded else "failed"
                    return self._event(outcome, state, str(description.get("FailureReason") or ""))
            if time.time() >= self.deadline:
                if self.stop_on_kill and self.waited.stop:
                    await self._stop(client)
                return self._event("timeout", last_state, f"{self.kind} {self.name} was still {last_state or 'unseen'}")
            await asyncio.sleep(min(poll_delay(polls), max(0.05, self.deadline - time.time())))
            polls += 1

    async def _describe(self, client: Any) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = await getattr(client, self.waited.describe)(**{self.waited.argument: self.name})
        except ClientError as error:
            if not_found(error):
                return None
            raise
        return answer

    async def _stop(self, client: Any) -> None:
        self.log.warning("Stopping %s %s", self.kind, self.name)
        try:
            await getattr(client, self.waited.stop)(**{self.waited.argument: self.name})
        except ClientError as error:
            # A job that has just ended, or never began, cannot be stopped, and need not be.
            if not not_found(error):
                raise
            self.log.info("Nothing to stop: %s", error)

    def _event(self, status: str, state: str, message: str) -> dict[str, Any]:
        told = {"kind": self.kind, "name": self.name, "status": status, "state": state, "message": message}
        return {**told, "carry": self.carry} if self.carry else told

    async def progress(self, description: Mapping[str, Any] | None) -> None:
        """Called after each look; for a subclass that has more to show."""

    async def finish(self) -> None:
        """Called once when the work has ended; for a subclass that has more to show."""


async def first_event(trigger: SageMakerWaitTrigger) -> TriggerEvent:
    """Run a trigger in this process and return its first event: the same waiting where a task does not defer."""
    async for event in trigger.run():
        return event
    raise RuntimeError(f"{trigger!r} ended without an event")


class TrainingJobTrigger(SageMakerWaitTrigger):
    """Wait for a training job and copy its log lines and its phases into the task log as they come."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._logs: Any = None
        self._tokens: dict[str, str] = {}
        self._phases_seen = 0

    async def progress(self, description: Mapping[str, Any] | None) -> None:
        """Log new phases ("Downloading - ...") and new lines of the job's log."""
        for transition in (description or {}).get("SecondaryStatusTransitions", [])[self._phases_seen :]:
            self.log.info("%s - %s", transition["Status"], transition.get("StatusMessage", ""))
            self._phases_seen += 1
        await self._copy_log()

    async def finish(self) -> None:
        """Read once more: CloudWatch shows a job's last lines a moment after the job has ended."""
        await asyncio.sleep(poll_delay(0))
        await self._copy_log()

    async def _copy_log(self) -> None:
        # The log is a convenience: that it cannot be read must not end the wait.
        try:
            self._logs = self._logs or await self._client("logs")
            for stream in await self._streams():
                await self._copy_stream(stream)
        except (ClientError, BotoCoreError, OSError) as error:
            self.log.debug("The log of %s cannot be read for the moment: %s", self.name, error)

    async def _streams(self) -> list[str]:
        try:
            answer = await self._logs.describe_log_streams(
                logGroupName=TRAINING_LOG_GROUP, logStreamNamePrefix=f"{self.name}/", orderBy="LogStreamName"
            )
        except ClientError as error:
            if not_found(error):
                return []  # the group appears with the account's first training job
            raise
        return [stream["logStreamName"] for stream in answer["logStreams"]]

    async def _copy_stream(self, stream: str) -> None:
        while True:
            position = {"nextToken": self._tokens[stream]} if stream in self._tokens else {}
            answer = await self._logs.get_log_events(
                logGroupName=TRAINING_LOG_GROUP, logStreamName=stream, startFromHead=True, **position
            )
            for event in answer["events"]:
                self.log.info("%s", event["message"].rstrip())
            token = answer["nextForwardToken"]
            if token == self._tokens.get(stream) or not answer["events"]:
                self._tokens[stream] = token
                return
            self._tokens[stream] = token


class TuningJobTrigger(SageMakerWaitTrigger):
    """Wait for a tuning job and tell in the task log how far it is; the training jobs' logs are their own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._told = ""

    async def progress(self, description: Mapping[str, Any] | None) -> None:
        """Log the counts of training jobs, and the best so far, when they have changed."""
        counters = (description or {}).get("TrainingJobStatusCounters", {})
        told = ", ".join(f"{count} {state}" for state, count in counters.items() if count)
        best = (description or {}).get("BestTrainingJob", {})
        if metric := best.get("FinalHyperParameterTuningJobObjectiveMetric"):
            told += f"; best {metric['MetricName']} {metric['Value']:.4f} with {best['TunedHyperParameters']}"
        if told and told != self._told:
            self.log.info("Training jobs of %s: %s", self.name, told)
            self._told = told


class EndpointGoneTrigger(SageMakerWaitTrigger):
    """Wait until an endpoint is deleted; the event has the status "success" and the state "Gone"."""

    async def _wait(self, client: Any) -> dict[str, Any]:
        polls = 0
        while time.time() < self.deadline:
            try:
                if await self._describe(client) is None:
                    return self._event("success", GONE, "")
            except (ClientError, BotoCoreError, OSError) as error:
                if not is_transient(error):
                    raise
                self.log.warning("Cannot see endpoint %s for the moment: %s", self.name, error)
            await asyncio.sleep(poll_delay(polls))
            polls += 1
        return self._event("timeout", "", f"endpoint {self.name} was still there")
