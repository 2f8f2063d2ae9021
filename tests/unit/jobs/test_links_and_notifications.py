"""Links lead to real pages, alerts go out, retries follow the error, people are asked only when they should be."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput

from scones import notifications
from scones.deployment.endpoint import EndpointDeploymentError
from scones.jobs.links import EndpointLink, ExecutionLink, TrainingJobLink, TransformJobLink, has_console, resource_url
from scones.notifications import AlertTopicNotifier, AwsRetryPolicy, announce_missed_deadline, late_after
from scones.training import models
from scones.training.approval import ModelApprovalOperator
from scones.training.curve import curve_chart, training_curve
from scones.ui.resource_pages import PAGES, NoSuchResourceError, build_application, describe, flatten, render
from tests.support.fake_aws import FakeSageMaker, client_error

LOCAL, AWS = "http://127.0.0.1:4580", "https://api.sagemaker.eu-west-1.amazonaws.com"


def test_on_aws_a_link_leads_to_the_console_of_the_region() -> None:
    url = resource_url(EndpointLink, AWS, "eu-west-1", "courier", "http://airflow")
    assert url == "https://eu-west-1.console.aws.amazon.com/sagemaker/home?region=eu-west-1#/endpoints/courier"
    arn = "arn:aws:states:eu-west-1:111122223333:execution:m:e"
    assert resource_url(ExecutionLink, AWS, "eu-west-1", arn, "").endswith(f"#/v2/executions/details/{arn}")
    china = "https://api.sagemaker.cn-north-1.amazonaws.com.cn"
    assert "console.amazonaws.cn" in resource_url(TrainingJobLink, china, "cn-north-1", "j", "")


@pytest.mark.parametrize("link", [TrainingJobLink, TransformJobLink, EndpointLink, ExecutionLink])
def test_elsewhere_it_leads_to_a_page_that_exists(link: Any) -> None:
    url = resource_url(link, LOCAL, "us-east-1", "a/b c", "http://127.0.0.1:8080/")
    assert url == f"http://127.0.0.1:8080/scones-resources/{link.page}/a%2Fb%20c"
    assert link.page in PAGES


def test_only_amazons_own_hosts_have_a_console() -> None:
    assert has_console(AWS)
    assert not has_console("https://amazonaws.com.example.org")
    assert not has_console(LOCAL)


def test_a_resource_page_shows_status_reason_members_and_log() -> None:
    sagemaker = FakeSageMaker()
    sagemaker.create_training_job(TrainingJobName="j", HyperParameters={"epochs": "3"}, InputDataConfig=[{"A": 1}])
    sagemaker.things["training_job", "j"] |= {"TrainingJobStatus": "Failed", "FailureReason": "why"}

    class Logs:
        @staticmethod
        def describe_log_streams(**arguments: Any) -> Any:
            assert arguments["logStreamNamePrefix"] == "j/"
            return {"logStreams": [{"logStreamName": "j/algo-1"}]}

        @staticmethod
        def get_log_events(**_: Any) -> Any:
            return {"events": [{"message": "Epoch[0] Validation-accuracy=0.875000\n"}]}

    page = describe("training-jobs", "j", lambda service: Logs if service == "logs" else sagemaker)
    assert (page["status"], page["reason"], page["tone"]) == ("Failed", "why", "violation")
    assert page["log"] == ["Epoch[0] Validation-accuracy=0.875000"]
    assert "epoch 0, validation: 0.8750" in page["chart"]
    assert ("Hyperparameters", ["epochs 3"]) in page["facts"]
    assert ("HyperParameters.epochs", "3") in page["rows"]
    assert ("InputDataConfig[0].A", "1") in page["rows"]
    assert list(flatten({"a": {"b": [1, {"c": 2}]}})) == [("a.b[0]", "1"), ("a.b[1].c", "2")]
    for kind, name in (("training-jobs", "nobody"), ("volcanoes", "j")):
        with pytest.raises(NoSuchResourceError):
            describe(kind, name, lambda _: sagemaker)


def test_the_curve_is_read_from_the_log_of_the_algorithm() -> None:
    log = [
        "[11/21/2026 00:00:01 INFO 14] Epoch[0] Train-accuracy=0.500000",
        "[11/21/2026 00:00:01 INFO 14] Epoch[0] Train-top_k_accuracy_2=1.000000",
        "[11/21/2026 00:00:02 INFO 14] Epoch[0] Validation-accuracy=0.600000",
        "[11/21/2026 00:00:09 INFO 14] Epoch[1] Validation-accuracy=0.100000",
        "[11/21/2026 00:00:19 INFO 14] Epoch[1] Validation-accuracy=0.900000",
    ]
    assert training_curve(log) == {"train": [(0, 0.5)], "validation": [(0, 0.6), (1, 0.9)]}
    assert curve_chart(training_curve(["nothing"])) == ""


def test_a_resource_page_escapes_what_it_shows() -> None:
    values = {
        "title": "Training job",
        "name": "j",
        "status": "Failed",
        "tone": "violation",
        "reason": "<script>alert(1)</script>",
        "facts": [("Hyperparameters", ["<b>3</b>", "<i>4</i>"])],
        "rows": [("HyperParameters.epochs", "<b>3</b>")],
        "log": ["<img src=x>"],
    }
    text = render(values, "/scones")
    assert "<script>" not in text
    assert "<b>3</b>" not in text
    assert "<i>4</i>" not in text
    assert "<img src=x>" not in text
    assert "There is no job" in render({"title": "There is no job"}, "/scones")
    assert "&lt;b&gt;3&lt;/b&gt;" in text


@pytest.mark.filterwarnings("ignore:Using `httpx`")  # Airflow imports Starlette's test client
def test_a_resource_page_is_not_for_strangers() -> None:
    import httpx

    async def ask() -> int:
        transport = httpx.ASGITransport(app=build_application(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://airflow") as client:
            return (await client.get("/training-jobs/j")).status_code

    assert asyncio.run(ask()) == 401


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []

    def publish(*arguments: Any, **_: Any) -> str:
        calls.append(arguments)
        return "id"

    monkeypatch.setattr(notifications, "publish_alert", publish)
    return calls


def test_a_failed_run_is_announced_by_name(sent: list[tuple[Any, ...]]) -> None:
    class Named:
        dag_id, run_id, render_template_as_native_obj = "train_and_deploy", "manual__1", False

    notifications.run_failed_notifier()({"dag": Named(), "dag_run": Named()})
    event, subject, document = sent[0]
    assert (event, subject) == ("run_failed", "train_and_deploy failed")
    assert "manual__1" in document["text"]


def test_an_alert_that_cannot_be_sent_does_not_hide_the_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> str:
        raise client_error("AccessDenied", "no topic for you")

    monkeypatch.setattr(notifications, "publish_alert", broken)
    AlertTopicNotifier(event="e", subject="s", message="m").notify({})


def test_lateness_is_announced(sent: list[tuple[Any, ...]]) -> None:
    alert = late_after("train_and_deploy", hours=4)
    assert alert.interval == timedelta(hours=4)
    assert alert.callback.path == "scones.notifications.announce_missed_deadline"
    context = {"dag_run": {"dag_run_id": "manual__1"}}
    asyncio.run(announce_missed_deadline(**alert.callback.kwargs, context=context))
    assert sent[0][0] == "deadline_missed"
    assert "manual__1" in sent[0][2]["text"]


@pytest.mark.parametrize(
    ("error", "action", "delay"),
    [
        (client_error("ThrottlingException", "slow down"), RetryAction.RETRY, timedelta(seconds=60)),
        (client_error("ValidationException", "no"), RetryAction.FAIL, None),
        (client_error("AccessDeniedException", "no"), RetryAction.FAIL, None),
        (client_error("InternalFailure", "sorry", status=500), RetryAction.DEFAULT, None),
        (EndpointDeploymentError("rolled back"), RetryAction.FAIL, None),
        (ValueError("wrong class"), RetryAction.FAIL, None),
        (FileNotFoundError("no image"), RetryAction.FAIL, None),
        (ConnectionResetError(), RetryAction.DEFAULT, None),
        (RuntimeError("who knows"), RetryAction.DEFAULT, None),
    ],
)
def test_retries_follow_the_error(error: Exception, action: RetryAction, delay: timedelta | None) -> None:
    decision = AwsRetryPolicy().evaluate(error, try_number=2, max_tries=3)
    assert (decision.action, decision.retry_delay) == (action, delay)


def approval(monkeypatch: pytest.MonkeyPatch, status: str = "PendingManualApproval", **changes: Any) -> Any:
    from airflow.providers.standard.operators import hitl

    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **_: None)
    registration = {"model_package_arn": "arn:package/1", "version": 1, "approval_status": status}
    return ModelApprovalOperator(task_id="approve_model", registration=registration, subject="Deploy?", **changes)


class Ti:
    id = "1"


def test_nobody_is_asked_when_the_run_does_not_want_it_or_the_version_was_approved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert approval(monkeypatch, required="False").execute({}) == {"decision": "not asked"}
    assert approval(monkeypatch, "Approved", required="True").execute({}) == {"decision": "approved before"}


def test_a_person_is_asked_with_the_time_limit_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    task = approval(monkeypatch, required="True", timeout_minutes="5")
    with pytest.raises(TaskAwaitingInput) as waiting:
        task.execute({"task_instance": Ti(), "ti": Ti()})
    assert waiting.value.timeout == timedelta(minutes=5)


@pytest.mark.parametrize(("answer", "approved"), [("Approve", True), ("Reject", False)])
def test_the_answer_is_written_into_the_registry(monkeypatch: pytest.MonkeyPatch, answer: str, approved: bool) -> None:
    from datetime import UTC, datetime

    settled: list[dict[str, Any]] = []
    monkeypatch.setattr(models, "settle_approval", lambda arn, **told: settled.append({"arn": arn, **told}))
    task = approval(monkeypatch, required="True")
    event = {
        "chosen_options": [answer],
        "params_input": {},
        "responded_at": datetime.now(UTC),
        "responded_by_user": {"id": "1", "name": "ann"},
    }
    task.execute_complete({"task": task, "ti": Ti()}, event)
    assert settled == [{"arn": "arn:package/1", "approved": approved, "by": "ann"}]


def test_no_answer_in_time_fails_and_leaves_the_registry_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "settle_approval", lambda *_, **__: pytest.fail("nobody decided"))
    with pytest.raises(AirflowFailException, match="start a new run"):
        approval(monkeypatch, required="True").execute_complete({}, {"error": "late", "error_type": "timeout"})
