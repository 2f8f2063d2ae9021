"""Alerts: the topic where the project tells people what happened, and whoever else the settings name."""

from __future__ import annotations

import json
import logging
from typing import Any

from scones.aws.resources import AWS_CONN_ID, stack_outputs
from scones.settings import Settings

log = logging.getLogger(__name__)

SUBJECT_MAX = 100  # SNS limit


def publish_alert(
    event: str, subject: str, document: dict[str, Any], *, topic_arn: str = "", aws_conn_id: str = AWS_CONN_ID
) -> str:
    """Publish a JSON document to the alert topic and tell the other notifiers; return the message id.

    Args:
        topic_arn: the topic; looked up in the stack's outputs when empty.
    """
    from airflow.providers.amazon.aws.hooks.sns import SnsHook

    arn = topic_arn or stack_outputs(aws_conn_id=aws_conn_id)["AlertTopicArn"]
    answer = SnsHook(aws_conn_id=aws_conn_id).publish_to_target(
        target_arn=arn,
        message=json.dumps({"event": event, **document}, default=str),
        subject=subject[:SUBJECT_MAX],
        message_attributes={"event": event},
    )
    notify_others(event, subject, str(document.get("text") or json.dumps(document, default=str)))
    return str(answer["MessageId"])


def notify_others(event: str, subject: str, text: str) -> int:
    """Hand an alert to each notifier of ``SCONES_ALERT_NOTIFIERS``; return how many took it.

    Their templated arguments see ``alert.event``, ``alert.subject`` and ``alert.text``: below a name of its own, as
    Airflow puts the arguments themselves among the names, where a mail's ``subject`` would stand for itself. One that
    fails is logged: it must neither hide what the alert tells of nor keep it from the others.
    """
    from airflow.sdk.module_loading import import_string

    listed = Settings.from_environ().alert_notifiers
    try:
        notifiers = [(one["notifier"], one.get("arguments", {})) for one in json.loads(listed)] if listed else []
    except (ValueError, TypeError, KeyError, AttributeError):
        log.exception(
            "SCONES_ALERT_NOTIFIERS is no JSON list of notifiers: the alert %r went to the topic only", subject
        )
        return 0
    told, alert = 0, {"event": event, "subject": subject, "text": text}
    for path, arguments in notifiers:
        try:
            import_string(path)(**arguments)({"alert": alert})
            told += 1
        except Exception:  # the arguments may hold secrets: they are not logged
            log.exception("The alert %r could not be given to %s", subject, path)
    return told
