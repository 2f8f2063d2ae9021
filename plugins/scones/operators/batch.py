"""The operator that scores one chunk of a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from airflow.exceptions import AirflowException
from airflow.sdk import BaseOperator, Context

from scones.defaults import AWS_CONN_ID
from scones.hooks.batch_chunks import ChunkFollower, ChunkRequest
from scones.triggers.batch import BatchChunkTrigger


class BatchChunkOperator(BaseOperator):
    """Runs the inference workflow for every image of one chunk and writes the chunk's part of the results.

    Why not ``StepFunctionStartExecutionOperator`` mapped per image: it takes a task for each, waits in whole minutes,
    hangs on TIMED_OUT, loses the cause, and cannot take up an execution it started before.

    Args:
        bucket: bucket of the batch.
        chunk: ``{"batch_id", "number", ...}``, as ``plan_batch`` gives it.
        concurrency: executions in flight at most, over all chunks of the batch that one triggerer follows.
        starts_per_second: StartExecution calls per second at most, likewise.
        deferrable: follow in the triggerer (no worker slot held); else in the worker, with the same code.
        end_from_trigger: a deferred success ends the task in the triggerer, without a worker in between. Not for a task
            with outlets or ``post_execute``: those need a worker.

    Returns (XCom): ``{"batch_id", "number", "images", "calls", <outcome>: n}``.
    """

    template_fields: Sequence[str] = ("bucket", "chunk", "concurrency", "starts_per_second")
    ui_color = "#d5e8d4"

    def __init__(
        self,
        *,
        bucket: str,
        chunk: dict[str, Any],
        concurrency: int | str = 64,
        starts_per_second: float | str = 100.0,
        deferrable: bool = True,
        end_from_trigger: bool = True,
        aws_conn_id: str | None = AWS_CONN_ID,
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.bucket = bucket
        self.chunk = chunk
        self.concurrency = concurrency
        self.starts_per_second = starts_per_second
        self.deferrable = deferrable
        self.end_from_trigger = end_from_trigger
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self._follower: ChunkFollower | None = None

    def request(self) -> ChunkRequest:
        """The chunk's follower needs this and nothing of Airflow."""
        return ChunkRequest(
            bucket=self.bucket,
            batch_id=self.chunk["batch_id"],
            number=int(self.chunk["number"]),
            concurrency=int(self.concurrency),
            starts_per_second=float(self.starts_per_second),
            aws_conn_id=self.aws_conn_id,
            region_name=self.region_name,
            verify=self.verify,
            botocore_config=self.botocore_config,
        )

    def execute(self, context: Context) -> dict[str, Any]:
        request = self.request()
        if self.deferrable:
            self.defer(
                trigger=BatchChunkTrigger(end_from_trigger=self.end_from_trigger, **asdict(request)),
                method_name="execute_complete",
                timeout=self.execution_timeout or timedelta(days=7),
            )
        self._follower = ChunkFollower(request)
        return asyncio.run(self._follower.run())

    def execute_complete(self, context: Context, event: dict[str, Any] | str | None = None) -> dict[str, Any]:
        if event == "success":
            # `dag.test()` resumes even a task that its trigger has ended, and drops the report.
            return {"batch_id": self.chunk["batch_id"], "number": self.chunk["number"]}
        if not isinstance(event, dict) or event.get("status") != "success":
            message = event.get("message") if isinstance(event, dict) else None
            message = message or "the trigger ended without an event"
            raise AirflowException(f"Chunk {self.chunk['number']} of batch {self.chunk['batch_id']}: {message}")
        report: dict[str, Any] = event["report"]
        self.log.info("Chunk %s: %s", self.chunk["number"], report)
        return report

    def on_kill(self) -> None:
        """Stop what the sync variant has running; the deferred one is stopped by its trigger."""
        if self._follower is None:
            return
        stopped = self._follower.stop_blocking()
        self.log.info("Killed: stopped %d executions of chunk %s", stopped, self.chunk["number"])
