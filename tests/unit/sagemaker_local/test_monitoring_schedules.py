"""Executions of monitoring schedules, without a service: over whose captures, once, and each schedule for itself."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from sagemaker_local import s3
from sagemaker_local.config import Config
from sagemaker_local.context import Context
from sagemaker_local.monitoring import executions, operations
from sagemaker_local.monitoring.executions import EXECUTION, SCHEDULE, captured_keys
from sagemaker_local.processing.operations import ProcessingQueue
from sagemaker_local.processing.runner import PROCESSING
from sagemaker_local.store import Resource


def at(text: str) -> float:
    return datetime.fromisoformat(text + "+00:00").timestamp()


NOON = at("2024-02-01T12:00:00")


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    made = Context(Config(data_dir=tmp_path, account_id="1" * 12), clock=lambda: NOON + 60)
    yield made
    made.close()


def add_schedule(ctx: Context, name: str, **config: Any) -> Resource:
    body = {"MonitoringScheduleConfig": {"ScheduleConfig": {"ScheduleExpression": "cron(0 * ? * * *)"}, **config}}
    return ctx.store.create(Resource(SCHEDULE, name, f"arn:{name}", body, "Scheduled", {"due": NOON}))


@pytest.mark.parametrize(
    ("start", "end", "hours"),
    [
        ("2024-02-01T11:00:00", "2024-02-01T12:00:00", ["11"]),
        ("2024-02-01T10:59:59", "2024-02-01T12:00:01", ["10", "11", "12"]),
        ("2024-02-01T00:00:00", "2024-02-01T11:00:00", ["09", "10"]),
    ],
)
def test_captures_are_those_of_the_hours_that_a_window_touches(ctx, monkeypatch, start, end, hours):
    keys = [f"capture/e/v/2024/02/01/{hour}/f.jsonl" for hour in ("09", "10", "11", "12")]
    foreign = ["capture/e/2024/13/45/99/x", "capture/e/0000/00/00/00/x", "capture/e/readme.txt"]
    monkeypatch.setattr(s3, "list_keys", lambda *_: [*foreign, *keys])
    found = captured_keys(ctx, "s3://b/capture/e", at(start), at(end), threading.Event())
    assert found == [f"v/2024/02/01/{hour}/f.jsonl" for hour in hours]


def test_a_schedule_that_cannot_be_run_does_not_hold_up_the_others(ctx, monkeypatch):
    launched: list[str] = []

    def launch(ctx: Context, schedule: Resource, *_: Any, **__: Any) -> None:
        if schedule.name == "broken":
            raise ValueError("a defect")
        launched.append(schedule.name)

    monkeypatch.setattr(operations, "launch", launch)
    for name in ("a", "broken", "c"):
        add_schedule(ctx, name)
    operations.Scheduler(ctx).run_due()
    assert launched == ["a", "c"]


def add_analysis(ctx: Context) -> Resource:
    """A schedule over what a batch transform captured."""
    output = {"S3Uri": "s3://b/reports", "LocalPath": "/opt/ml/processing/out"}
    definition = {
        "MonitoringInputs": [{"BatchTransformInput": {"DataCapturedDestinationS3Uri": "s3://b/capture"}}],
        "MonitoringOutputConfig": {"MonitoringOutputs": [{"S3Output": output}]},
        "MonitoringResources": {"ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large"}},
        "MonitoringAppSpecification": {"ImageUri": "sagemaker-model-monitor-analyzer"},
        "RoleArn": "arn:role",
    }
    schedule = add_schedule(ctx, "s", MonitoringJobDefinition=definition)
    schedule.body["MonitoringType"] = "DataQuality"
    ctx.store.update(SCHEDULE, "s", lambda row: row.body.update(schedule.body))
    return schedule


def test_an_execution_that_was_begun_and_not_noted_has_one_job(ctx, monkeypatch):
    add_analysis(ctx)
    ctx.provide(ProcessingQueue("processing", 0, lambda *_: None, lambda *_: None))
    monkeypatch.setattr(s3, "list_keys", lambda *_: ["capture/v/2024/02/01/11/f.jsonl"])
    monkeypatch.setattr(s3, "put_bytes", lambda *_: None)
    monkeypatch.setattr(ctx.events, "publish", lambda *_: None)
    settle = executions.settle

    def full_disk(*_: Any, **__: Any) -> None:
        monkeypatch.setattr(executions, "settle", settle)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(executions, "settle", full_disk)
    scheduler = operations.Scheduler(ctx)
    scheduler.run_due()
    (pending,) = ctx.store.every(EXECUTION)
    assert pending.status == "Pending"
    scheduler.run_due()
    (job,) = ctx.store.every(PROCESSING.kind)
    (execution,) = ctx.store.every(EXECUTION)
    assert (execution.status, execution.body["ProcessingJobArn"]) == ("InProgress", job.arn)


def test_it_stops_looking_while_s3_is_away_and_leaves_the_execution_for_the_next_start(ctx, monkeypatch):
    schedule = add_analysis(ctx)
    asked = threading.Event()

    def away(_: str) -> Any:
        asked.set()
        raise EndpointConnectionError(endpoint_url="http://s3")

    monkeypatch.setattr(ctx.clients, "get", away)
    monkeypatch.setattr(operations, "PERIOD", 0.01)
    scheduler = operations.Scheduler(ctx)
    scheduler.start()
    assert asked.wait(10)
    stopping = threading.Thread(target=scheduler.stop, daemon=True)
    stopping.start()
    stopping.join(10)
    assert not stopping.is_alive()
    (execution,) = ctx.store.every(EXECUTION)
    assert execution.status == "Pending"
    assert ctx.store.get(SCHEDULE, schedule.name).internal["due"] == NOON
