"""The queue that tells of arrivals."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from scones.aws.resources import ResourcesNotDeployedError, client

log = logging.getLogger(__name__)
MESSAGES_A_CALL = 10


class ArrivalQueue:
    """As a task empties it."""

    def __init__(self, outputs: Mapping[str, str]) -> None:
        self._url = arrivals_queue_url(outputs)
        self._sqs = client("sqs")

    def receive(self, at_most: int) -> list[tuple[str, str]]:
        """Return (receipt, body) of what lies there; nobody else gets it for the queue's visibility timeout."""
        received: list[tuple[str, str]] = []
        while len(received) < at_most:
            answer = self._sqs.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=min(MESSAGES_A_CALL, at_most - len(received)),
                WaitTimeSeconds=1,  # a call that doesn't wait asks a part of the servers only
            )
            if not answer.get("Messages"):
                break
            received += [(message["ReceiptHandle"], message["Body"]) for message in answer["Messages"]]
        return received

    def delete(self, receipts: Sequence[str]) -> None:
        """Take messages out for good. One that stays comes again, and is known then."""
        for first in range(0, len(receipts), MESSAGES_A_CALL):
            some = receipts[first : first + MESSAGES_A_CALL]
            entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(some)]
            failed = self._sqs.delete_message_batch(QueueUrl=self._url, Entries=entries).get("Failed")
            if failed:
                log.warning("%d messages could not be deleted and come again: %s", len(failed), failed[0])


def arrivals_queue_url(outputs: Mapping[str, str]) -> str:
    """Return the address of the queue of arrivals, from the stack's outputs.

    Raises:
        ResourcesNotDeployedError: the stack is older than the queue.
    """
    if "ArrivalsQueueUrl" not in outputs:
        raise ResourcesNotDeployedError("The stack has no queue of arrivals: its template is older. Run `make deploy`.")
    return outputs["ArrivalsQueueUrl"]
