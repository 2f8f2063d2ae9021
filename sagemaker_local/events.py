"""State changes as EventBridge events, in the form SageMaker sends them, from the source `aws.sagemaker`.

EventBridge lets nobody but AWS itself send as `aws.sagemaker`. An emulator has to know this service, by its user agent,
as the SageMaker beside it; one that does not refuses the events, which is logged.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sagemaker_local.context import Context

log = logging.getLogger(__name__)

SOURCE = "aws.sagemaker"


def publish(ctx: Context, detail_type: str, arn: str, detail: dict[str, Any]) -> None:
    """Put one event on the default bus. EventBridge being away is logged and costs the event, never the operation."""
    entry = {
        "Time": datetime.fromtimestamp(ctx.now(), UTC),
        "Source": SOURCE,
        "DetailType": detail_type,
        "Resources": [arn],
        "Detail": json.dumps(detail),
    }
    try:
        answer = ctx.clients.get("events").put_events(Entries=[entry])
    except (BotoCoreError, ClientError) as error:
        log.warning("event %r of %s was not published: %s", detail_type, arn, error)
        return
    if refused := answer["Entries"][0].get("ErrorCode"):
        log.warning("event %r of %s was refused: %s", detail_type, arn, refused)
