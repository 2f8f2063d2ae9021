"""The shape of monitor_endpoint, and what its tasks do with params and context."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from scones.defaults import DRIFT_ASSET
from tests.dags.dag_files import load

EDGES = {
    "resolve_resources": {"await_capture", "write_report", "publish_metrics", "send_alarm", "report_drift"},
    "await_capture": {"write_report"},
    "write_report": {"publish_metrics", "send_alarm", "report_drift"},
    "publish_metrics": set(),
    "send_alarm": set(),
    "report_drift": set(),
}


@pytest.fixture(scope="module")
def dag() -> Any:
    return load("monitor_endpoint")


def test_tasks_and_their_order(dag: Any) -> None:
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == EDGES


def test_only_report_drift_emits_the_drift_asset(dag: Any) -> None:
    assert [task.task_id for task in dag.tasks if DRIFT_ASSET in task.outlets] == ["report_drift"]


def test_drift_is_skipped_or_emitted_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    from scones.monitoring import actions as monitoring_actions
    from scones.monitoring import tasks as monitoring_flow

    events: Any = defaultdict(lambda: type("Event", (), {"extra": {}})())
    report_drift = monitoring_flow.report_drift.function
    params = {"retrain_cooldown_hours": 3}
    calls: list[Any] = []

    def request(resources: Any, written: Any, **options: Any) -> Any:
        calls.append(options)
        return written["asked"]

    monkeypatch.setattr(monitoring_actions, "request_retraining", request)
    with pytest.raises(AirflowSkipException):
        report_drift({}, {"asked": None}, params=params, outlet_events=events)
    assert events[DRIFT_ASSET].extra == {}
    report_drift({}, {"asked": {"report_id": "report-1"}}, params=params, outlet_events=events)
    assert events[DRIFT_ASSET].extra == {"report_id": "report-1"}
    assert calls == [{"cooldown_hours": 3}] * 2
