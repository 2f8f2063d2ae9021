"""The alert topic: where the project tells people what happened."""

from __future__ import annotations

import json
from typing import Any

from scones.aws.resources import stack_outputs
from scones.defaults import AWS_CONN_ID

SUBJECT_MAX = 100  # SNS limit


def publish_alert(
    event: str, subject: str, document: dict[str, Any], *, topic_arn: str = "", aws_conn_id: str = AWS_CONN_ID
) -> str:
    """Publish a JSON document to the alert topic; return the message id.

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
    return str(answer["MessageId"])
