"""State changes as EventBridge events, in the form SageMaker sends them, from the source `aws.sagemaker`.

EventBridge lets nobody but AWS itself send as `aws.sagemaker`. An emulator has to know this service, by its user agent,
as the SageMaker beside it; one that does not refuses the events, which is logged.

Events leave on one thread of their own, in order: an EventBridge that is slow or away holds up no operation.
"""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sagemaker_local.clients import Clients
from sagemaker_local.config import Clock
from sagemaker_local.store import Store

log = logging.getLogger(__name__)

SOURCE = "aws.sagemaker"
_LAST_SECONDS = 5.0


class Publisher:
    """The default bus of EventBridge, as this service sends to it."""

    def __init__(self, clients: Clients, store: Store, clock: Clock) -> None:
        self._clients = clients
        self._store = store
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="events")

    def publish(self, detail_type: str, arn: str, detail: dict[str, Any]) -> None:
        """Send one event after those before it: `detail` with times in milliseconds and the resource's tags, as AWS.

        One that EventBridge does not take is logged and lost; the operation goes on.
        """
        entry = {
            "Time": datetime.fromtimestamp(self._clock(), UTC),
            "Source": SOURCE,
            "DetailType": detail_type,
            "Resources": [arn],
            "Detail": json.dumps({**_in_milliseconds(detail), "Tags": self._store.tags(arn)}),
        }
        self._thread.submit(self._send, entry)

    def close(self) -> None:
        """Send what waits, as far as it goes within seconds."""
        wait([self._thread.submit(lambda: None)], _LAST_SECONDS)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _send(self, entry: dict[str, Any]) -> None:
        event = f"event {entry['DetailType']!r} of {entry['Resources'][0]}"
        try:
            answer = self._clients.get("events").put_events(Entries=[entry])
        except (BotoCoreError, ClientError) as error:
            log.warning("%s was not published: %s", event, error)
            return
        if refused := answer["Entries"][0].get("ErrorCode"):
            log.warning("%s was refused: %s", event, refused)


def _in_milliseconds(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_milliseconds(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: round(inner * 1000) if key.endswith("Time") and isinstance(inner, int | float) else _in_milliseconds(inner)
        for key, inner in value.items()
        if inner is not None
    }
