"""The shape of monitor_endpoint; what its tasks do is in tests/contract/test_monitoring.py."""

from __future__ import annotations

from typing import Any

import pytest

from scones.monitoring.tasks import DRIFT_ASSET
from tests.support.dag_files import load

EDGES = {
    "resolve_resources": {
        "await_capture",
        "write_report",
        "publish_metrics",
        "send_alarm",
        "report_drift",
        "report_labels",
    },
    "await_capture": {"write_report"},
    "write_report": {"publish_metrics", "send_alarm", "report_drift", "report_labels"},
    "publish_metrics": set(),
    "send_alarm": set(),
    "report_drift": set(),
    "report_labels": set(),
}


@pytest.fixture(scope="module")
def dag() -> Any:
    return load("monitor_endpoint")


def test_tasks_and_their_order(dag: Any) -> None:
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == EDGES


def test_only_report_drift_emits_the_drift_asset(dag: Any) -> None:
    assert [task.task_id for task in dag.tasks if DRIFT_ASSET in task.outlets] == ["report_drift"]
