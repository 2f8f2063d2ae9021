"""The trigger that follows one chunk of a batch in the triggerer, while no worker slot is held."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from scones.batch.engine import TransportError
from scones.batch.follower import ChunkFollower, is_final
from scones.batch.plan import ChunkRequest
from scones.jobs.cancellation import cancellable, to_the_end


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
