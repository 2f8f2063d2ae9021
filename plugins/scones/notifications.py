"""Messages to people over the alert topic of the stack, and the retry rules every DAG follows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import BaseDeadlineReference, DeadlineAlert
from airflow.sdk.definitions.retry_policy import RetryAction, RetryDecision, RetryPolicy

from scones.aws.alerts import publish_alert
from scones.aws.resources import AWS_CONN_ID

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class AlertTopicNotifier(BaseNotifier):
    """Publish to the stack's AlertTopicArn, looked up when the message is sent.

    The provider's SnsNotifier wants the topic's ARN while the DAG file is parsed, when nothing may call AWS; until it
    takes a callable. A message that cannot be sent is logged: it must not hide the failure it tells of.

    Args:
        event: short name of what happened, e.g. "run_failed"; subscribers can filter on the attribute of that name.
        subject: templated first line.
        message: templated text.
    """

    template_fields = ("subject", "message")

    def __init__(
        self, *, event: str, subject: str, message: str, aws_conn_id: str = AWS_CONN_ID, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.event = event
        self.subject = subject
        self.message = message
        self.aws_conn_id = aws_conn_id

    def get_template_env(self, dag: Any = None) -> Any:
        """Return the DAG's Jinja environment, or a plain one where the DAG is only there in its serialised form."""
        return super().get_template_env(dag=dag if hasattr(dag, "get_template_env") else None)

    def notify(self, context: Context) -> None:
        """Send the message."""
        try:
            publish_alert(self.event, self.subject, {"text": self.message}, aws_conn_id=self.aws_conn_id)
        except Exception:
            log.exception("The alert %r could not be sent", self.subject)


def run_failed_notifier() -> AlertTopicNotifier:
    """Return what a DAG does when a run of it has failed."""
    return AlertTopicNotifier(
        event="run_failed",
        subject="{{ dag.dag_id }} failed",
        message="Run {{ dag_run.run_id }} of {{ dag.dag_id }} failed; the failed task's log says why.",
    )


class SinceQueued(BaseDeadlineReference):
    """When a run was queued, the first time.

    Airflow's own `DeadlineReference.DAGRUN_QUEUED_AT` makes every clear of such a run answer HTTP 500 (Airflow 3.3,
    apache/airflow#70368), and clearing is the way to go on from a failed task. Needed until that is mended. The plugin
    `scones_ui` registers it.
    """

    required_kwargs = frozenset({"dag_id", "run_id"})

    def _evaluate_with(self, *, session: Any, dag_id: str, run_id: str) -> datetime | None:
        from airflow.models import DagRun
        from sqlalchemy import select

        found: datetime | None = session.scalar(
            select(DagRun.queued_at).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
        )
        return found


def late_after(dag_id: str, *, hours: int) -> DeadlineAlert:
    """Return the alert of a run that is not done ``hours`` after it was queued."""
    return DeadlineAlert(
        reference=SinceQueued(),
        interval=timedelta(hours=hours),
        callback=AsyncCallback(announce_missed_deadline, {"dag_id": dag_id, "hours": hours}),
        name=f"done within {hours} h",
    )


async def announce_missed_deadline(dag_id: str, hours: int, context: Mapping[str, Any] | None = None) -> None:
    """Tell the topic that a run takes longer than it should. Runs in the triggerer (AsyncCallback).

    Args:
        context: what the scheduler sends along: ``{"dag_run": <the REST API's answer>, "deadline": {...}}``.
    """
    from asgiref.sync import sync_to_async

    run_id = (context or {}).get("dag_run", {}).get("dag_run_id", "")
    text = f"Run {run_id} of {dag_id} was not done {hours} hours after it was queued."
    await sync_to_async(publish_alert)("deadline_missed", f"{dag_id} is late", {"text": text})


class AwsRetryPolicy(RetryPolicy):
    """Fail at once on what a retry cannot cure, wait longer when AWS throttles, else follow the task's own settings.

    `ExceptionRetryPolicy` of Airflow 3.3 tells errors apart by class only; every AWS error is a ClientError and
    differs by its code. Needed until it can match on codes.
    """

    THROTTLED_DELAY = timedelta(seconds=30)

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide by the error's code, or by its class for errors in the data or the params."""
        from scones.aws.errors import THROTTLING_CODES, code_of, is_transient
        from scones.deployment.endpoint import EndpointDeploymentError

        code = code_of(exception)
        if code in THROTTLING_CODES:
            return RetryDecision.retry(self.THROTTLED_DELAY * try_number, f"AWS throttles ({code})")
        if code and not is_transient(exception):
            return RetryDecision.fail(f"AWS refused the request ({code}): the same request would be refused again")
        if isinstance(exception, EndpointDeploymentError):
            return RetryDecision.fail("the same deployment would fail again")
        if isinstance(exception, ValueError | TypeError | KeyError | FileNotFoundError):
            return RetryDecision.fail(f"{type(exception).__name__}: wrong input stays wrong")
        return RetryDecision(action=RetryAction.DEFAULT)

    def serialize(self) -> dict[str, Any]:
        """Return the class path: the policy has no settings."""
        return {"__type": f"{type(self).__module__}.{type(self).__qualname__}"}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> AwsRetryPolicy:
        """Return the policy."""
        return cls()


DAG_DEFAULT_ARGS: dict[str, Any] = {
    "owner": "scones-ml",
    "retries": 2,
    "retry_delay": timedelta(seconds=5),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=5),
    "execution_timeout": timedelta(hours=1),
    "retry_policy": AwsRetryPolicy(),
}
