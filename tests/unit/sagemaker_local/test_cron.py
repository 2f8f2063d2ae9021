"""When monitoring schedules are due."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sagemaker_local.config import Config
from sagemaker_local.context import Context
from sagemaker_local.monitoring import operations
from sagemaker_local.monitoring.cron import parse_offset, parse_schedule
from sagemaker_local.monitoring.executions import SCHEDULE
from sagemaker_local.store import Resource


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("expression", "now", "due", "window_hours"),
    [
        ("cron(0 * ? * * *)", "2026-01-01T10:00:00", "2026-01-01T11:00:00", 1),
        ("cron(0 * ? * * *)", "2026-01-01T10:59:59", "2026-01-01T11:00:00", 1),
        ("cron(0 3 ? * * *)", "2026-01-01T03:00:00", "2026-01-02T03:00:00", 24),
        ("cron(0 3 ? * * *)", "2026-12-31T02:10:00", "2026-12-31T03:00:00", 24),
        ("cron(0 1/6 ? * * *)", "2026-01-01T02:00:00", "2026-01-01T07:00:00", 6),
        ("cron(0 1/6 ? * * *)", "2026-01-01T19:30:00", "2026-01-02T01:00:00", 6),
    ],
)
def test_the_next_time(expression, now, due, window_hours):
    schedule = parse_schedule(expression)
    assert schedule is not None
    assert schedule.following(at(now)) == at(due)
    assert schedule.window == window_hours * 3600


def test_now_is_no_cron():
    assert parse_schedule("NOW") is None


@pytest.mark.parametrize(
    "expression", ["", "cron(5 * ? * * *)", "cron(0 24 ? * * *)", "cron(0 1/0 ? * * *)", "rate(1 h)"]
)
def test_other_expressions_are_refused(expression):
    with pytest.raises(ValueError, match="chedule expression"):
        parse_schedule(expression)


@pytest.mark.parametrize(("text", "seconds"), [("-PT1H", -3600), ("PT0H", 0), ("-P1DT30M", -88200), ("P2D", 172800)])
def test_offsets(text, seconds):
    assert parse_offset(text) == seconds


@pytest.mark.parametrize("text", ["", "1h", "PT", "-P", "PT1S"])
def test_other_offsets_are_refused(text):
    with pytest.raises(ValueError, match="ISO 8601"):
        parse_offset(text)


def test_a_due_schedule_is_launched_once_over_the_hour_before_it(tmp_path, monkeypatch):
    """Also after the service was down for hours: once, for the time it was due."""
    now = [at("2026-01-01T10:30:00")]
    ctx = Context(Config(data_dir=tmp_path, account_id="1" * 12), clock=lambda: now[0])
    launched: list[tuple[float, float, float]] = []
    monkeypatch.setattr(operations, "launch", lambda ctx, schedule, *times, cancelled: launched.append(times))
    config = {"ScheduleConfig": {"ScheduleExpression": "cron(0 * ? * * *)"}}
    due = {"due": at("2026-01-01T11:00:00")}
    ctx.store.create(Resource(SCHEDULE, "s", "arn:s", {"MonitoringScheduleConfig": config}, "Scheduled", due))
    scheduler = operations.Scheduler(ctx)
    scheduler.run_due()
    assert launched == []
    now[0] = at("2026-01-01T14:20:00")
    scheduler.run_due()
    scheduler.run_due()
    assert launched == [(at("2026-01-01T11:00:00"), at("2026-01-01T10:00:00"), at("2026-01-01T11:00:00"))]
    schedule = ctx.store.get(SCHEDULE, "s")
    assert schedule is not None
    assert schedule.internal["due"] == at("2026-01-01T15:00:00")
    ctx.close()
