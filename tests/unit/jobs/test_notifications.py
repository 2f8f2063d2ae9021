"""Alerts go out, retries follow the error, people are asked only when they should be."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction

from scones import notifications
from scones.deployment.endpoint import EndpointDeploymentError
from scones.notifications import AlertTopicNotifier, AwsRetryPolicy, announce_missed_deadline, late_after
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
