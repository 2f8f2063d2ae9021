"""Following one chunk of a batch from its items in S3 to its part of the results in S3."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any, TypedDict
from weakref import WeakValueDictionary

from scones.aws import layout
from scones.aws.errors import is_transient
from scones.batch import map_items
from scones.batch.aws import EndpointEye, async_client, hook_for, workflow_transport
from scones.batch.engine import BatchEngine, TransportError, UnfinishedError, WorkflowTransport
from scones.batch.flow import FlowControl
from scones.batch.items import (
    ABORTED,
    CLASSIFIED,
    FAILED,
    REJECTED,
    TIMED_OUT,
    BatchFacts,
    Ending,
    Item,
    Row,
    read_items,
    result_row,
    workflow_input,
)
from scones.batch.plan import ChunkRequest, Plan
from scones.batch.progress import ChunkProgress
from scones.batch.watch import EndpointWatch, Sight

log = logging.getLogger(__name__)

CHECKPOINT_EVERY_S = 10.0
RECORD_READERS = 32

_flows: WeakValueDictionary[tuple[Any, ...], FlowControl] = WeakValueDictionary()


def shared_flow(batch_id: str, concurrency: int, starts_per_second: float) -> FlowControl:
    """Return the flow control of a batch: one for all its chunks that this event loop follows."""
    key = (id(asyncio.get_running_loop()), batch_id, concurrency, starts_per_second)
    flow = _flows.get(key)
    if flow is None:
        flow = _flows[key] = FlowControl(concurrency, starts_per_second)
    return flow


class ChunkReport(TypedDict):
    """What a chunk's task returns."""

    batch_id: str
    number: int
    images: int
    classified: int
    rejected: int
    failed: int
    timed_out: int
    aborted: int
    calls: dict[str, int]


def is_final(error: Exception) -> bool:
    """Whether another try at a chunk would end in the same way."""
    return not isinstance(error, UnfinishedError) and not is_transient(error)


class ChunkFollower:
    """Scores one chunk. Can be started again at any time: what is done is kept, what runs is adopted."""

    def __init__(self, request: ChunkRequest) -> None:
        self.request = request
        self._engine: BatchEngine | None = None
        self._rows: dict[str, Row] = {}
        self._saved = 0
        self._kept: frozenset[str] = frozenset()
        self._plan: Plan | None = None
        self._watch = EndpointWatch()
        self._eye: EndpointEye | None = None

    async def run(self) -> ChunkReport:
        """Follow the chunk to its end and write its part.

        Raises:
            TransportError: Step Functions refuses for good.
            LookupError: the batch has no plan.
        """
        request = self.request
        part = layout.part(request.batch_id, request.number)
        checkpoint = layout.checkpoint(request.batch_id, request.number)
        async with async_client(hook_for(request, "s3"), max_pool_connections=RECORD_READERS) as s3:
            document = await self._read(s3, layout.plan(request.batch_id))
            if document is None:
                raise LookupError(
                    f"Batch {request.batch_id} has no plan in s3://{request.bucket}: run plan_batch again."
                )
            plan = self._plan = Plan.from_json(document)
            text = await self._read(s3, layout.chunk(request.batch_id, request.number))
            items = list(read_items((text or "").splitlines()))
            done = _rows(await self._read(s3, part))
            if len(done) == len(items):
                log.info("Chunk %d has its %d results already", request.number, len(done))
                return self._report(done)
            self._rows = {row["item_id"]: row for row in _rows(await self._read(s3, checkpoint))}
            self._saved, self._kept = len(self._rows), frozenset(self._rows)
            if self._saved:
                log.info("%d of %d images were done before: their results are kept", self._saved, len(items))
            self._watch.note(Sight(datetime.fromisoformat(plan.created_at).timestamp(), plan.model))
            self._eye = EndpointEye(request, plan)
            await self._score(s3, plan, [item for item in items if item.item_id not in self._rows])
            await self._look()
            rows = [self._rows[item.item_id] for item in items]
            await self._write(s3, part, rows)
            await self._note_progress(s3, rows)
            await s3.delete_object(Bucket=request.bucket, Key=checkpoint)
        return self._report(rows)

    async def stop(self) -> int:
        """Stop every execution of this chunk that still runs; returns how many.

        Opens a client of its own: a kill cancels ``run`` first, and that closes the one it had.
        """
        if self._engine is None or self._plan is None or not self._engine.unfinished:
            return 0
        async with workflow_transport(self.request, self._plan) as transport:
            return await self._engine.stop_unfinished(transport, "The task that followed it was killed")

    def stop_blocking(self) -> int:
        """As ``stop``, for a signal handler: in a thread of its own, as this one's event loop is interrupted."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, self.stop()).result()

    async def _score(self, s3: Any, plan: Plan, items: Sequence[Item]) -> None:
        facts = BatchFacts(plan.batch_id, plan.model)
        async with workflow_transport(self.request, plan) as transport:
            saver = asyncio.create_task(self._keep_checkpoint(s3, len(items)))
            try:
                if plan.fan_out == "distributed_map":
                    await self._score_by_map(s3, transport, plan, items, facts)
                else:
                    await self._score_by_executions(transport, plan, items, facts)
            except Exception:
                # The retry need not describe again (or, express, run again) what has ended.
                with contextlib.suppress(Exception):
                    await self._save_checkpoint(s3)
                raise
            finally:
                saver.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await saver

    def _engine_over(self, transport: WorkflowTransport, **options: Any) -> BatchEngine:
        request = self.request
        flow = shared_flow(request.batch_id, request.concurrency, request.starts_per_second)
        self._engine = BatchEngine(transport, flow, batch_id=request.batch_id, **options)
        return self._engine

    async def _score_by_executions(
        self, transport: WorkflowTransport, plan: Plan, items: Sequence[Item], facts: BatchFacts
    ) -> None:
        def note(ending: Ending) -> None:
            self._rows[ending.item.item_id] = result_row(ending, facts)

        input_of = partial(workflow_input, batch_id=plan.batch_id, bucket=self.request.bucket, threshold=plan.threshold)
        engine = self._engine_over(transport, input_of=input_of, deadline_s=plan.deadline_s, on_ending=note)
        await engine.run(items)

    async def _score_by_map(
        self, s3: Any, transport: WorkflowTransport, plan: Plan, items: Sequence[Item], facts: BatchFacts
    ) -> None:
        """Run the chunk's parent execution, and make rows of what its items wrote."""
        request = self.request
        if not items:
            return
        parents: list[Ending] = []

        def input_of(parent: Item) -> str:
            return map_items.parent_input(
                parent.key,
                batch_id=plan.batch_id,
                bucket=request.bucket,
                threshold=plan.threshold,
                concurrency=request.concurrency,
            )

        # A parent runs as long as all its items, one after the other at worst.
        deadline_s = plan.deadline_s * (1 + len(items) / request.concurrency)
        engine = self._engine_over(transport, input_of=input_of, deadline_s=deadline_s, on_ending=parents.append)
        await engine.run([map_items.parent_item(request.number, layout.chunk(plan.batch_id, request.number))])
        [parent] = parents
        problem = map_items.parent_problem(parent.execution)
        if problem:
            raise TransportError(problem)
        gate = asyncio.Semaphore(RECORD_READERS)

        async def read(item: Item) -> None:
            async with gate:
                try:
                    answer = await s3.get_object(
                        Bucket=request.bucket, Key=map_items.record_key(plan.batch_id, item.key)
                    )
                except s3.exceptions.NoSuchKey:
                    record, written = None, None
                else:
                    async with answer["Body"] as body:
                        record, written = json.loads(await body.read()), answer["LastModified"]
                self._rows[item.item_id] = map_items.row_of_record(item, record, written, parent, facts)

        async with asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(read(item))

    async def _keep_checkpoint(self, s3: Any, total: int) -> None:
        before = len(self._rows)
        while True:
            await asyncio.sleep(CHECKPOINT_EVERY_S)
            await self._save_checkpoint(s3)
            counts = Counter(row["outcome"] for row in self._rows.values())
            log.info("Chunk %d: %d of %d done (%s)", self.request.number, len(self._rows) - before, total, dict(counts))

    async def _look(self) -> None:
        """Look at the endpoint, and hold the rows against it; those of an earlier life were held against its sights."""
        if self._eye is None:
            return
        sight = await asyncio.to_thread(self._eye.look, self._watch.sights[-1].model)
        if sight is not None:
            self._watch.note(sight)
        self._watch.attribute(row for item_id, row in self._rows.items() if item_id not in self._kept)

    async def _save_checkpoint(self, s3: Any) -> None:
        if len(self._rows) > self._saved:
            await self._look()
            rows = list(self._rows.values())
            await self._write(s3, layout.checkpoint(self.request.batch_id, self.request.number), rows)
            await self._note_progress(s3, rows)
            self._saved = len(rows)

    async def _note_progress(self, s3: Any, rows: Sequence[Row]) -> None:
        key = layout.progress(self.request.batch_id, self.request.number)
        body = json.dumps(ChunkProgress.of(rows).as_dict()).encode()
        await s3.put_object(Bucket=self.request.bucket, Key=key, Body=body, ContentType="application/json")

    async def _read(self, s3: Any, key: str) -> str | None:
        try:
            answer = await s3.get_object(Bucket=self.request.bucket, Key=key)
        except s3.exceptions.NoSuchKey:
            return None
        async with answer["Body"] as body:
            return str((await body.read()).decode("utf-8"))

    async def _write(self, s3: Any, key: str, rows: Sequence[Row]) -> None:
        body = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows).encode("ascii")
        await s3.put_object(Bucket=self.request.bucket, Key=key, Body=body, ContentType="application/x-ndjson")

    def _report(self, rows: Sequence[Row]) -> ChunkReport:
        counts = Counter(row["outcome"] for row in rows)
        return {
            "batch_id": self.request.batch_id,
            "number": self.request.number,
            "images": len(rows),
            "classified": counts[CLASSIFIED],
            "rejected": counts[REJECTED],
            "failed": counts[FAILED],
            "timed_out": counts[TIMED_OUT],
            "aborted": counts[ABORTED],
            "calls": dict(self._engine.calls) if self._engine else {},
        }


def _rows(text: str | None) -> list[Row]:
    return [json.loads(line) for line in (text or "").split("\n") if line]
