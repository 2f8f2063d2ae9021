"""Alerts go out, retries follow the error, people are asked only when they should be."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput

from scones import notifications
from scones.deployment.endpoint import EndpointDeploymentError
from scones.notifications import AlertTopicNotifier, AwsRetryPolicy, announce_missed_deadline, late_after
from scones.training import models
from scones.training.approval import ModelApprovalOperator
from tests.support.fake_aws import client_error


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
