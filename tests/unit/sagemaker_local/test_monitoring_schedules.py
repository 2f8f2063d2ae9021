"""Executions of monitoring schedules, without a service: over whose captures, once, and each schedule for itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sagemaker_local import s3
from sagemaker_local.config import Config
from sagemaker_local.context import Context
from sagemaker_local.monitoring import operations
from sagemaker_local.monitoring.executions import SCHEDULE, captured_keys
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
    found = captured_keys(ctx, "s3://b/capture/e", at(start), at(end))
    assert found == [f"v/2024/02/01/{hour}/f.jsonl" for hour in hours]


def test_a_schedule_that_cannot_be_run_does_not_hold_up_the_others(ctx, monkeypatch):
    launched: list[str] = []

    def launch(ctx: Context, schedule: Resource, *_: Any) -> None:
        if schedule.name == "broken":
            raise ValueError("a defect")
        launched.append(schedule.name)

    monkeypatch.setattr(operations, "launch", launch)
    for name in ("a", "broken", "c"):
        add_schedule(ctx, name)
    operations.Scheduler(ctx).run_due()
    assert launched == ["a", "c"]
