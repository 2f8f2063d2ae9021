"""Operator and trigger: what they hand over, and what they do when they are killed."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

import pytest
from airflow.exceptions import AirflowException
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from airflow.triggers.base import TaskSuccessEvent
from botocore.exceptions import EndpointConnectionError, NoCredentialsError

from scones.batch.engine import TransportError, UnfinishedError
from scones.batch.follower import ChunkFollower, shared_flow
from scones.batch.operator import BatchChunkOperator
from scones.batch.plan import ChunkReference
from scones.batch.trigger import BatchChunkTrigger

CHUNK: ChunkReference = {"batch_id": "b-1", "number": 3, "images": 5, "title": "images 16 to 20", "small": False}


def operator(**options: Any) -> BatchChunkOperator:
    return BatchChunkOperator(
        task_id="run_chunk",
        bucket="bucket",
        chunk=CHUNK,
        concurrency="7",
        starts_per_second="2.5",
        aws_conn_id="aws_other",
        region_name="eu-west-1",
        verify=False,
        botocore_config={"connect_timeout": 3},
        **options,
    )


def test_it_defers_with_everything_the_trigger_needs() -> None:
    with pytest.raises(TaskDeferred) as deferred:
        operator().execute({})
    path, fields = deferred.value.trigger.serialize()
    assert fields == {
        "end_from_trigger": True,
        "bucket": "bucket",
        "batch_id": "b-1",
        "number": 3,
        "concurrency": 7,
        "starts_per_second": 2.5,
        "aws_conn_id": "aws_other",
        "region_name": "eu-west-1",
        "verify": False,
        "botocore_config": {"connect_timeout": 3},
    }
    module, name = path.rsplit(".", 1)
    again = getattr(importlib.import_module(module), name)(**fields)
    assert again.serialize() == (path, fields)


@pytest.mark.parametrize(
    ("small", "defer_after_s", "takes_s", "deferred"),
    [(True, "10", 0, False), (True, 0.05, 60, True), (True, 0, 0, True), (False, 10, 0, True)],
)
def test_a_small_batch_is_followed_by_the_worker_for_a_while(
    small: bool, defer_after_s: float | str, takes_s: float, deferred: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[int] = []

    async def run(self: ChunkFollower) -> dict[str, Any]:
        await asyncio.sleep(takes_s)
        return {"number": self.request.number}

    async def stop(self: ChunkFollower) -> int:
        stopped.append(self.request.number)
        return 0

    monkeypatch.setattr(ChunkFollower, "run", run)
    monkeypatch.setattr(ChunkFollower, "stop", stop)
    made = operator(defer_after_s=defer_after_s)
    made.chunk = {**CHUNK, "small": small}
    if deferred:
        with pytest.raises(TaskDeferred):
            made.execute({})
    else:
        assert made.execute({}) == {"number": 3}
    assert stopped == [], "what was started goes on, for the trigger to adopt"


def test_it_returns_what_the_trigger_reports() -> None:
    report = {"batch_id": "b-1", "number": 3, "classified": 5}
    assert operator().execute_complete({}, {"status": "success", "report": report}) == report


def test_dag_test_resumes_it_after_the_trigger_ended_it() -> None:
    event = TaskSuccessEvent(xcoms={"return_value": {}}).payload
    assert operator().execute_complete({}, event) == {"batch_id": "b-1", "number": 3}


@pytest.mark.parametrize("event", [None, {}, {"status": "error", "message": "AccessDenied"}])
def test_it_fails_when_the_trigger_could_not(event: dict[str, Any] | None) -> None:
    with pytest.raises(AirflowException, match="Chunk 3 of batch b-1"):
        operator().execute_complete({}, event)


@pytest.mark.parametrize("deferrable", [True, False])
def test_template_fields_are_arguments(deferrable: bool) -> None:
    made = operator(deferrable=deferrable)
    assert all(hasattr(made, name) for name in made.template_fields)


def test_the_sync_variant_scores_in_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(self: ChunkFollower) -> dict[str, Any]:
        return {"number": self.request.number}

    monkeypatch.setattr(ChunkFollower, "run", run)
    assert operator(deferrable=False).execute({}) == {"number": 3}


def test_a_killed_sync_task_stops_what_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the worker: the kill comes from a signal handler, while the event loop of the task is running."""
    stopped = []
    made = operator(deferrable=False)

    async def run(self: ChunkFollower) -> dict[str, Any]:
        made.on_kill()
        return {}

    async def stop(self: ChunkFollower) -> int:
        stopped.append(self.request.number)
        return 2

    monkeypatch.setattr(ChunkFollower, "run", run)
    monkeypatch.setattr(ChunkFollower, "stop", stop)
    made.execute({})
    assert stopped == [3]


def test_a_kill_before_anything_was_started() -> None:
    operator().on_kill()
    trigger = BatchChunkTrigger(bucket="b", batch_id="b-1", number=0, concurrency=1, starts_per_second=1.0)
    asyncio.run(trigger.on_kill())


def test_a_second_cancellation_does_not_keep_a_kill_from_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the triggerer does it: it cancels again what has not ended a second after the first time."""
    stopped = []

    async def stop(self: ChunkFollower) -> int:
        await asyncio.sleep(0.05)
        stopped.append(self.request.number)
        return 1

    monkeypatch.setattr(ChunkFollower, "stop", stop)

    async def kill() -> None:
        trigger = BatchChunkTrigger(bucket="b", batch_id="b-1", number=4, concurrency=1, starts_per_second=1.0)
        killing = asyncio.create_task(trigger.on_kill())
        await asyncio.sleep(0.01)
        killing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await killing
        await asyncio.sleep(0.2)

    asyncio.run(kill())
    assert stopped == [4]


def test_what_stays_wrong_is_not_tried_again() -> None:
    with pytest.raises(AirflowFailException, match="AccessDenied"):
        operator().execute_complete({}, {"status": "error", "message": "AccessDenied", "final": True})


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (TransportError("AccessDenied"), True),
        (LookupError("no plan"), True),
        (NoCredentialsError(), True),
        (UnfinishedError("start refused 40 times"), False),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), False),
    ],
)
def test_the_trigger_reports_errors_at_once(monkeypatch: pytest.MonkeyPatch, error: Exception, final: bool) -> None:
    async def run(self: ChunkFollower) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(ChunkFollower, "run", run)
    trigger = BatchChunkTrigger(bucket="b", batch_id="b-1", number=0, concurrency=1, starts_per_second=1.0)

    async def events() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    [event] = asyncio.run(events())
    assert (event["status"], event["final"]) == ("error", final)
    assert str(error).strip("'") in event["message"]


@pytest.mark.parametrize("end_from_trigger", [True, False])
def test_a_success_ends_the_task_in_the_trigger_or_in_a_worker(
    monkeypatch: pytest.MonkeyPatch, end_from_trigger: bool
) -> None:
    report = {"batch_id": "b-1", "number": 0, "classified": 5}

    async def run(self: ChunkFollower) -> dict[str, Any]:
        return report

    monkeypatch.setattr(ChunkFollower, "run", run)
    request: dict[str, Any] = {
        "bucket": "b",
        "batch_id": "b-1",
        "number": 0,
        "concurrency": 1,
        "starts_per_second": 1.0,
    }
    trigger = BatchChunkTrigger(end_from_trigger=end_from_trigger, **request)

    async def events() -> list[Any]:
        return [event async for event in trigger.run()]

    [event] = asyncio.run(events())
    if end_from_trigger:
        assert isinstance(event, TaskSuccessEvent)
        assert event.xcoms == {"return_value": report}
    else:
        assert event.payload == {"status": "success", "report": report}


def test_chunks_of_one_batch_in_one_loop_share_their_flow_control() -> None:
    async def flows() -> list[Any]:
        return [shared_flow("b-1", 8, 5.0), shared_flow("b-1", 8, 5.0), shared_flow("b-2", 8, 5.0)]

    first, second, other = asyncio.run(flows())
    assert first is second
    assert other is not first
