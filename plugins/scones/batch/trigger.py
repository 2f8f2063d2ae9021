"""The triggers: one follows a chunk of a batch while no worker slot is held, one watches the queue of arrivals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TaskSuccessEvent, TriggerEvent

from scones.aws.resources import AWS_CONN_ID, ResourcesNotDeployedError
from scones.batch.arrivals import Bell
from scones.batch.engine import TransportError
from scones.batch.follower import ChunkFollower, is_final
from scones.batch.plan import ChunkRequest
from scones.jobs.cancellation import cancellable, to_the_end

# How long after a failed look the queue is looked at again.
BLIND_S = 30


class BatchChunkTrigger(BaseTrigger):
    """Starts and follows the executions of one chunk; fires once, when its part of the results is in S3.

    With ``end_from_trigger`` a success ends the task from here: no worker is started only to pass the report on. What
    went wrong always goes back to a worker, where the task's retries and their policy apply.

    A triggerer that dies or hands the trigger over loses nothing: the next ``run`` adopts what was started. Killing the
    task (mark failed, clear) stops what it had running.
    """

    def __init__(self, end_from_trigger: bool = False, **request: Any) -> None:
        super().__init__()
        self.end_from_trigger = end_from_trigger
        self.request = ChunkRequest(**request)
        self._follower = ChunkFollower(self.request)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "end_from_trigger": self.end_from_trigger,
            **asdict(self.request),
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            report = await cancellable(self._follower.run())
        except (TransportError, LookupError, BotoCoreError, ClientError) as error:
            message, final = f"{type(error).__name__}: {error}", is_final(error)
            yield TriggerEvent({"status": "error", "message": message, "final": final})
        else:
            self.log.info("Chunk %d: %s", self.request.number, report)
            if self.end_from_trigger:
                yield TaskSuccessEvent(xcoms={"return_value": report})
            else:
                yield TriggerEvent({"status": "success", "report": report})

    async def on_kill(self) -> None:
        await to_the_end(self._stop())

    async def _stop(self) -> None:
        stopped = await self._follower.stop()
        self.log.info("Killed: stopped %d executions of chunk %d", stopped, self.request.number)


class ArrivalsTrigger(BaseEventTrigger):
    """Fires when something lies in the queue of arrivals, and again while it does; takes nothing out.

    The run that it starts empties the queue. So nothing is lost with a triggerer, and what arrives while a run is at
    work, or before one begins, is one batch. The queue's address is looked up where the connection points.

    Own, because the provider's `SqsSensorTrigger` needs the address when the DAG is parsed, deletes a message before
    Airflow has written down that it came, and fires once a message.
    """

    def __init__(self, aws_conn_id: str = AWS_CONN_ID) -> None:
        super().__init__()
        self.aws_conn_id = aws_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{type(self).__module__}.{type(self).__qualname__}", {"aws_conn_id": self.aws_conn_id}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from botocore.exceptions import BotoCoreError, ClientError

        bell = Bell()
        while True:
            try:
                async with AsyncExitStack() as opened:
                    sqs, look = await cancellable(self._open(opened))
                    while True:
                        for message in (await sqs.receive_message(**look)).get("Messages", []):
                            sent_at = int(message["Attributes"]["SentTimestamp"]) / 1000
                            pause_s = bell.ring(sent_at, time.time())
                            since = datetime.fromtimestamp(sent_at, UTC).isoformat(timespec="seconds")
                            yield TriggerEvent({"waiting_since": since})
                            await asyncio.sleep(pause_s)
            except (ClientError, BotoCoreError, OSError, ResourcesNotDeployedError) as error:
                # An event trigger that raised would be started again at once, and so on for ever.
                self.log.warning("The queue of arrivals cannot be seen: %s. Next look in %d s", error, BLIND_S)
                await asyncio.sleep(BLIND_S)

    async def _open(self, opened: AsyncExitStack) -> tuple[Any, dict[str, Any]]:
        """Return a client that closes with ``opened``, and the call that waits for a message and leaves it there."""
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

        from scones.aws.queue import arrivals_queue_url
        from scones.aws.resources import stack_outputs
        from scones.batch.aws import async_client

        outputs = await asyncio.to_thread(stack_outputs, self.aws_conn_id)
        hook = AwsBaseHook(aws_conn_id=self.aws_conn_id, client_type="sqs")
        sqs = await opened.enter_async_context(async_client(hook))
        return sqs, {
            "QueueUrl": arrivals_queue_url(outputs),
            "MaxNumberOfMessages": 1,
            "WaitTimeSeconds": 20,
            "VisibilityTimeout": 0,
            "MessageSystemAttributeNames": ["SentTimestamp"],
        }
