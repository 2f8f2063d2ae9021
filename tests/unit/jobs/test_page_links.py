"""The tasks that write a page show a button to it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag

from scones.batch.links import BatchLink
from scones.batch.names import batch_id_for
from scones.jobs import page_links

DAGS = Path(__file__).resolve().parents[3] / "dags"


@pytest.mark.parametrize(
    ("dag_id", "task_id", "button"),
    [
        ("monitor_endpoint", "write_report", "Monitoring report"),
        ("train_and_deploy", "write_report", "Monitoring report"),
        ("train_and_deploy", "evaluation.evaluate_model", "Evaluation"),
        ("batch_inference", "summarize_batch", "Batch"),
        ("generate_traffic", "summarize_batch", "Batch"),
    ],
)
def test_the_task_has_the_button_and_keeps_one_xcom(dag_id: str, task_id: str, button: str) -> None:
    bag = DagBag(dag_folder=str(DAGS / f"{dag_id}.py"))
    assert not bag.import_errors
    task = bag.dags[dag_id].get_task(task_id)
    assert [link.name for link in task.operator_extra_links] == [button]
    assert task.multiple_outputs is False


@pytest.mark.parametrize(
    ("link", "returned", "url"),
    [
        (
            page_links.ReportLink(),
            {"endpoint_name": "courier", "report_id": "report-1/../x"},
            "/scones/reports/courier/report-1%2F..%2Fx",
        ),
        (page_links.EvaluationLink(), {"training_job_name": "job-1"}, "/scones/evaluations/job-1"),
        (BatchLink(), None, f"/scones/batches/{batch_id_for('d', 'r')}"),
        (page_links.ReportLink(), None, ""),
        (page_links.EvaluationLink(), {}, ""),
    ],
)
def test_the_button_leads_to_the_page_or_is_not_there(
    monkeypatch: pytest.MonkeyPatch, link: Any, returned: Any, url: str
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://airflow.example/")
    monkeypatch.setattr(page_links, "XCom", SimpleNamespace(get_value=lambda **_: returned))
    key: Any = SimpleNamespace(dag_id="d", run_id="r")
    assert link.get_link(None, ti_key=key) == ("http://airflow.example" + url if url else "")
