"""The log of a job or an endpoint in CloudWatch Logs."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from scones.aws.errors import code_of

TRAINING_LOGS = "/aws/sagemaker/TrainingJobs"
MOST_LINES = 10_000  # GetLogEvents gives no more at once


def read_log(logs: Any, group: str, stream_prefix: str = "", lines: int = MOST_LINES) -> list[str]:
    """Return the last lines of a log group's streams; none when there is no such group.

    Args:
        logs: a client of CloudWatch Logs.
    """
    prefix = {"logStreamNamePrefix": stream_prefix} if stream_prefix else {}
    found: list[str] = []
    try:
        for stream in logs.describe_log_streams(logGroupName=group, **prefix)["logStreams"]:
            answer = logs.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=False, limit=lines
            )
            found += [event["message"].rstrip() for event in answer["events"]]
    except ClientError as error:
        if code_of(error) != "ResourceNotFoundException":
            raise
    return found[-lines:]
