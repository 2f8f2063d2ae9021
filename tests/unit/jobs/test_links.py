"""The buttons of a task lead to the thing it made and to the page it wrote."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from scones.batch.links import BatchLink
from scones.batch.names import batch_id_for
from scones.jobs import links
from scones.jobs.links import EndpointLink, TrainingJobLink, TransformJobLink, has_console, resource_url
from scones.ui.resources import PAGES
from tests.support.dag_files import load

LOCAL, AWS = "http://127.0.0.1:4580", "https://api.sagemaker.eu-west-1.amazonaws.com"


def test_on_aws_a_link_leads_to_the_console_of_the_region() -> None:
    url = resource_url(EndpointLink, AWS, "eu-west-1", "courier")
    assert url == "https://eu-west-1.console.aws.amazon.com/sagemaker/home?region=eu-west-1#/endpoints/courier"
    china = "https://api.sagemaker.cn-north-1.amazonaws.com.cn"
    assert "console.amazonaws.cn" in resource_url(TrainingJobLink, china, "cn-north-1", "j")


@pytest.mark.parametrize("link", [TrainingJobLink, TransformJobLink, EndpointLink])
def test_elsewhere_it_leads_to_a_page_that_exists(link: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://127.0.0.1:8080/")
    url = resource_url(link, LOCAL, "us-east-1", "a/b c")
    assert url == f"http://127.0.0.1:8080/scones/resources/{link.page}/a%2Fb%20c"
    assert link.page in PAGES


def test_only_amazons_own_hosts_have_a_console() -> None:
    assert has_console(AWS)
    assert not has_console("https://amazonaws.com.example.org")
    assert not has_console(LOCAL)


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
    task = load(dag_id).get_task(task_id)
    assert [link.name for link in task.operator_extra_links] == [button]
    assert task.multiple_outputs is False


@pytest.mark.parametrize(
    ("link", "returned", "url"),
    [
        (
            links.ReportLink(),
            {"endpoint_name": "courier", "report_id": "report-1/../x"},
            "/scones/reports/courier/report-1%2F..%2Fx",
        ),
        (links.EvaluationLink(), {"training_job_name": "job-1"}, "/scones/evaluations/job-1"),
        (BatchLink(), None, f"/scones/batches/{batch_id_for('d', 'r')}"),
        (links.ReportLink(), None, ""),
        (links.EvaluationLink(), {}, ""),
    ],
)
def test_the_button_leads_to_the_page_or_is_not_there(
    monkeypatch: pytest.MonkeyPatch, link: Any, returned: Any, url: str
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://airflow.example/")
    monkeypatch.setattr(links, "XCom", SimpleNamespace(get_value=lambda **_: returned))
    key: Any = SimpleNamespace(dag_id="d", run_id="r")
    assert link.get_link(None, ti_key=key) == ("http://airflow.example" + url if url else "")
