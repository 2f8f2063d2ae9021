"""State changes as EventBridge events, in the form SageMaker sends them.

EventBridge lets nobody but AWS itself send as `aws.sagemaker`, and emulators keep that rule. Where it is refused the
source is `local.sagemaker`, so a rule for both places says `"source": ["aws.sagemaker", "local.sagemaker"]`.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sagemaker_local.context import Context

log = logging.getLogger(__name__)

SOURCES = ("aws.sagemaker", "local.sagemaker")


def publish(ctx: Context, detail_type: str, arn: str, detail: dict[str, Any]) -> None:
    """Put one event on the default bus. EventBridge being away is logged and costs the event, never the operation."""
    entry = {
        "Time": datetime.fromtimestamp(ctx.now(), UTC),
        "DetailType": detail_type,
        "Resources": [arn],
        "Detail": json.dumps(detail),
    }
    try:
        for source in SOURCES:
            answer = ctx.clients.get("events").put_events(Entries=[{**entry, "Source": source}])
            refused = answer["Entries"][0].get("ErrorCode")
            if refused != "NotAuthorizedForSourceException":
                break
    except (BotoCoreError, ClientError) as error:
        log.warning("event %r of %s was not published: %s", detail_type, arn, error)
        return
    if refused:
        log.warning("event %r of %s was refused: %s", detail_type, arn, refused)
