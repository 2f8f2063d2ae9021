"""The operator that scores one chunk of a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from airflow.exceptions import AirflowException
from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowFailException

from scones.aws.resources import AWS_CONN_ID
from scones.batch.follower import ChunkFollower, ChunkReport
from scones.batch.names import BATCH_POOL
from scones.batch.plan import ChunkReference, ChunkRequest
from scones.batch.trigger import BatchChunkTrigger


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
        defer_after_s: how long the worker follows a small batch's only chunk (``chunk["small"]``) itself before it
            leaves the rest to the triggerer: Airflow takes 2 s to begin and end a deferral, all the time that a few
            hundred images need. 0 defers at once.
        end_from_trigger: a deferred success ends the task in the triggerer, without a worker in between. Not for a task
            with outlets or ``post_execute``: those need a worker.

    Returns (XCom): ``{"batch_id", "number", "images", "calls", <outcome>: n}``.
    """

    template_fields: Sequence[str] = ("bucket", "chunk", "concurrency", "starts_per_second", "defer_after_s")
    ui_color = "#d5e8d4"

    def __init__(
        self,
        *,
        bucket: str,
        chunk: ChunkReference,
        concurrency: int | str = 64,
        starts_per_second: float | str = 100.0,
        deferrable: bool = True,
        end_from_trigger: bool = True,
        defer_after_s: float | str = 0,
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
        self.defer_after_s = defer_after_s
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

    def execute(self, context: Context) -> Any:
        request = self.request()
        follower = self._follower = ChunkFollower(request)
        if self.deferrable:
            seconds = float(self.defer_after_s) if self.chunk.get("small") else 0
            report = asyncio.run(_follow_briefly(follower, seconds)) if seconds > 0 else None
            if report is not None:
                return report
            self._follower = None  # what it started goes on; the trigger adopts it
            self.defer(
                trigger=BatchChunkTrigger(end_from_trigger=self.end_from_trigger, **asdict(request)),
                method_name="execute_complete",
                timeout=self.execution_timeout or timedelta(days=7),
            )
        return asyncio.run(follower.run())

    def execute_complete(self, context: Context, event: dict[str, Any] | str | None = None) -> Any:
        if event == "success":
            # `dag.test()` resumes even a task that its trigger has ended, and drops the report.
            return {"batch_id": self.chunk["batch_id"], "number": self.chunk["number"]}
        if not isinstance(event, dict) or event.get("status") != "success":
            message = event.get("message") if isinstance(event, dict) else None
            message = message or "the trigger ended without an event"
            # A retry of what stays wrong (no right, no such state machine) would only take longer to say so.
            kind = AirflowFailException if isinstance(event, dict) and event.get("final") else AirflowException
            raise kind(f"Chunk {self.chunk['number']} of batch {self.chunk['batch_id']}: {message}")
        report: ChunkReport = event["report"]
        self.log.info("Chunk %s: %s", self.chunk["number"], report)
        return report

    def on_kill(self) -> None:
        """Stop what the sync variant has running; the deferred one is stopped by its trigger."""
        if self._follower is None:
            return
        stopped = self._follower.stop_blocking()
        self.log.info("Killed: stopped %d executions of chunk %s", stopped, self.chunk["number"])


async def _follow_briefly(follower: ChunkFollower, seconds: float) -> ChunkReport | None:
    """The report of a chunk that ends soon; None when it is time to leave the rest to the trigger."""
    try:
        async with asyncio.timeout(seconds):
            return await follower.run()
    except TimeoutError:
        return None


def run_chunks(chunks: Any, bucket: str) -> Any:
    """Return the mapped task ``run_chunk``, one for each chunk of a plan, at the pace that the run's form asks for.

    Args:
        chunks: what the planning task returns: a list of chunks.
        bucket: bucket of the batch, or its template.
    """
    return BatchChunkOperator.partial(
        task_id="run_chunk",
        bucket=bucket,
        concurrency="{{ params.concurrency }}",
        starts_per_second="{{ params.starts_per_second }}",
        defer_after_s="{{ params.defer_after_seconds }}",
        map_index_template="{{ task.chunk['title'] }}",
        pool=BATCH_POOL,
        execution_timeout=timedelta(hours=24),
    ).expand(chunk=chunks)
