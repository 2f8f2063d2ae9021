"""Following one chunk of a batch from its items in S3 to its part of the results in S3."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from scones.aws import layout
from scones.batch import map_items
from scones.batch.engine import BatchEngine
from scones.batch.executions import ExpressExecutions, StandardExecutions, async_client
from scones.batch.flow import FlowControl
from scones.batch.items import Item, read_items, workflow_input
from scones.batch.outcomes import OUTCOMES, BatchFacts, Ending, result_row
from scones.batch.transport import TransportError, WorkflowTransport

log = logging.getLogger(__name__)

CHECKPOINT_EVERY_S = 10.0
CONNECTIONS_MAX = 256
RECORD_READERS = 32

_flows: WeakValueDictionary[tuple[Any, ...], FlowControl] = WeakValueDictionary()


def shared_flow(batch_id: str, concurrency: int, starts_per_second: float) -> FlowControl:
    """Return the flow control of a batch: one for all its chunks that this event loop follows."""
    key = (id(asyncio.get_running_loop()), batch_id, concurrency, starts_per_second)
    flow = _flows.get(key)
    if flow is None:
        flow = _flows[key] = FlowControl(concurrency, starts_per_second)
    return flow


@dataclass(frozen=True)
class ChunkRequest:
    """What a chunk's follower must know; the rest is in the batch's plan. All of it survives serialisation as JSON."""

    bucket: str
    batch_id: str
    number: int
    concurrency: int
    starts_per_second: float
    aws_conn_id: str | None = "aws_default"
    region_name: str | None = None
    verify: bool | str | None = None
    botocore_config: dict[str, Any] | None = None

    def hook(self, service: str) -> Any:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

        return AwsBaseHook(
            aws_conn_id=self.aws_conn_id,
            client_type=service,
            region_name=self.region_name,
            verify=self.verify,
            config=self.botocore_config,
        )


class ChunkFollower:
    """Scores one chunk. Can be started again at any time: what is done is kept, what runs is adopted."""

    def __init__(self, request: ChunkRequest, engine_type: type[BatchEngine] = BatchEngine) -> None:
        self.request = request
        self._engine_type = engine_type
        self._engine: BatchEngine | None = None
        self._rows: dict[str, dict[str, Any]] = {}
        self._saved = 0
        self._plan: dict[str, Any] = {}

    @property
    def unfinished(self) -> list[str]:
        """ARNs of executions that may be running."""
        return self._engine.unfinished if self._engine else []

    async def run(self) -> dict[str, Any]:
        """Follow the chunk to its end and write its part.

        Returns:
            ``{"batch_id", "number", "images", "calls", <outcome>: n}``.

        Raises:
            TransportError: Step Functions refuses for good.
        """
        request = self.request
        async with async_client(request.hook("s3"), max_pool_connections=RECORD_READERS) as s3:
            plan = json.loads(await self._read(s3, layout.plan(request.batch_id)) or "null")
            if plan is None:
                raise LookupError(
                    f"Batch {request.batch_id} has no plan in s3://{request.bucket}: run plan_batch again."
                )
            self._plan = plan
            text = await self._read(s3, layout.chunk(request.batch_id, request.number))
            items = list(read_items((text or "").splitlines()))
            part = layout.part(request.batch_id, request.number)
            done = _rows(await self._read(s3, part))
            if len(done) == len(items):
                log.info("Chunk %d has its %d results already", request.number, len(done))
                return self._report(done)
            checkpoint = layout.checkpoint(request.batch_id, request.number)
            self._rows = {row["item_id"]: row for row in _rows(await self._read(s3, checkpoint))}
            self._saved = len(self._rows)
            if self._saved:
                log.info("%d of %d images were done before: their results are kept", self._saved, len(items))
            await self._score(s3, plan, [item for item in items if item.identity not in self._rows])
            rows = [self._rows[item.identity] for item in items]
            await self._write(s3, part, rows)
            await s3.delete_object(Bucket=request.bucket, Key=checkpoint)
        return self._report(rows)

    async def stop(self) -> int:
        """Stop every execution of this chunk that still runs; returns how many.

        Opens a client of its own: a kill cancels ``run`` first, and that closes the one it had.
        """
        if self._engine is None or not self._engine.unfinished:
            return 0
        async with contextlib.AsyncExitStack() as stack:
            transport = await self._transport(stack, self._plan)
            return await self._engine.stop_unfinished(transport, "The task that followed it was killed")

    def stop_blocking(self) -> int:
        """As ``stop``, for a signal handler: in a thread of its own, as this one's event loop is interrupted."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, self.stop()).result()

    async def _score(self, s3: Any, plan: dict[str, Any], items: Sequence[Item]) -> None:
        request = self.request
        facts = BatchFacts(request.batch_id, request.bucket, plan["classes"], plan["model"])
        flow = shared_flow(request.batch_id, request.concurrency, request.starts_per_second)

        judged: dict[str, Any] = {"threshold": plan["threshold"], "threshold_version": plan["threshold_version"]}
        where: dict[str, Any] = {"batch_id": request.batch_id, "bucket": request.bucket}
        deadline_s = float(plan["execution_timeout_seconds"])
        by_map = plan["mode"] == "distributed_map"
        parents: list[Ending] = []

        def note(ending: Ending) -> None:
            self._rows[ending.item.identity] = result_row(ending, facts)

        def input_of(item: Item) -> str:
            if by_map:
                return map_items.parent_input(item.key, **where, **judged, concurrency=request.concurrency)
            return workflow_input(item, **where, **judged)

        async with contextlib.AsyncExitStack() as stack:
            self._engine = self._engine_type(
                await self._transport(stack, plan),
                flow,
                batch_id=request.batch_id,
                input_of=input_of,
                # A parent runs as long as all its items, one after the other at worst.
                deadline_s=deadline_s * (1 + len(items) / request.concurrency) if by_map else deadline_s,
                on_ending=parents.append if by_map else note,
            )
            saver = asyncio.create_task(self._keep_checkpoint(s3, len(items)))
            try:
                if by_map and items:
                    chunk_key = layout.chunk(request.batch_id, request.number)
                    await self._engine.run([map_items.parent_item(request.number, chunk_key)])
                    await self._read_records(s3, items, parents[0], facts)
                else:
                    await self._engine.run(items)
            except Exception:
                # The retry need not describe again (or, express, run again) what has ended.
                with contextlib.suppress(Exception):
                    await self._save_checkpoint(s3)
                raise
            finally:
                saver.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await saver

    async def _read_records(self, s3: Any, items: Sequence[Item], parent: Ending, facts: BatchFacts) -> None:
        """Make rows of what the items of the Distributed Map wrote."""
        problem = map_items.parent_problem(parent.execution)
        if problem:
            raise TransportError(problem)
        gate = asyncio.Semaphore(RECORD_READERS)

        async def read(item: Item) -> None:
            async with gate:
                key = map_items.record_key(self.request.batch_id, item.key)
                try:
                    answer = await s3.get_object(Bucket=self.request.bucket, Key=key)
                except s3.exceptions.NoSuchKey:
                    record, written = None, None
                else:
                    async with answer["Body"] as body:
                        record, written = json.loads(await body.read()), answer["LastModified"]
                self._rows[item.identity] = map_items.row_of_record(item, record, written, parent, facts)

        async with asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(read(item))

    async def _transport(self, stack: contextlib.AsyncExitStack, plan: dict[str, Any]) -> WorkflowTransport:
        hook, deadline_s = self.request.hook("stepfunctions"), float(plan["execution_timeout_seconds"])
        express = plan["mode"] == "express"
        options: dict[str, Any] = {
            # The engine paces and repeats by itself: a retry inside botocore would hide the throttling from it.
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "max_pool_connections": min(CONNECTIONS_MAX, self.request.concurrency + 8),
            "connect_timeout": 10,
            "read_timeout": deadline_s + 10 if express else 60,
        }
        if express and await asyncio.to_thread(hook.conn_config.get_service_endpoint_url, "stepfunctions"):
            # "sync-" goes before AWS's own host name; an endpoint_url given by the connection is an address as it is.
            options["inject_host_prefix"] = False
        client = await stack.enter_async_context(async_client(hook, **options))
        arn = plan["state_machine_arn"]
        return ExpressExecutions(client, arn, deadline_s) if express else StandardExecutions(client, arn)

    async def _keep_checkpoint(self, s3: Any, total: int) -> None:
        before = len(self._rows)
        while True:
            await asyncio.sleep(CHECKPOINT_EVERY_S)
            await self._save_checkpoint(s3)
            counts = Counter(row["outcome"] for row in self._rows.values())
            log.info("Chunk %d: %d of %d done (%s)", self.request.number, len(self._rows) - before, total, dict(counts))

    async def _save_checkpoint(self, s3: Any) -> None:
        if len(self._rows) > self._saved:
            rows = list(self._rows.values())
            await self._write(s3, layout.checkpoint(self.request.batch_id, self.request.number), rows)
            self._saved = len(rows)

    async def _read(self, s3: Any, key: str) -> str | None:
        try:
            answer = await s3.get_object(Bucket=self.request.bucket, Key=key)
        except s3.exceptions.NoSuchKey:
            return None
        async with answer["Body"] as body:
            return str((await body.read()).decode("utf-8"))

    async def _write(self, s3: Any, key: str, rows: Sequence[dict[str, Any]]) -> None:
        body = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows).encode("ascii")
        await s3.put_object(Bucket=self.request.bucket, Key=key, Body=body, ContentType="application/x-ndjson")

    def _report(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        counts = Counter(row["outcome"] for row in rows)
        return {
            "batch_id": self.request.batch_id,
            "number": self.request.number,
            "images": len(rows),
            **{outcome: counts[outcome] for outcome in OUTCOMES},
            "calls": dict(self._engine.calls) if self._engine else {},
        }


def _rows(text: str | None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (text or "").split("\n") if line]
