"""The Distributed Map's way of scoring a chunk: its parent execution's input, and its items' records as rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from scones.aws import layout
from scones.batch.items import BatchFacts, Ending, Execution, Item, Row, Threshold, result_row

_STATUS = {"classified": "SUCCEEDED", "rejected": "FAILED", "failed": "FAILED"}
# The map ended as it should, with more failed items than it was told to tolerate.
TOLERATED_EXCEEDED = "States.ExceedToleratedFailureThreshold"


def parent_item(number: int, chunk_key: str) -> Item:
    """Return the parent execution of a chunk as an item: named, adopted and stopped like any other."""
    return Item(chunk_key, item_id=f"map-of-chunk-{number}")


def parent_input(chunk_key: str, *, batch_id: str, bucket: str, threshold: Threshold, concurrency: int) -> str:
    """Return the input of the Distributed Map's parent execution; its contract is in infrastructure/README.md."""
    return json.dumps(
        {
            "bucket": bucket,
            "keys_manifest_key": chunk_key,
            "batch_id": batch_id,
            "threshold": threshold.value,
            "threshold_version": threshold.version,
            "max_concurrency": concurrency,
            # Failures are counted and judged at the end of the batch, with their causes.
            "tolerated_failure_percentage": 100,
        },
        sort_keys=True,
    )


def record_key(batch_id: str, key: str) -> str:
    """Return where an item's record lies."""
    return f"{layout.map_items(batch_id)}{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}.json"


def parent_problem(parent: Execution) -> str | None:
    """Return why no item can have been scored, or None when the items' records tell the rest."""
    if parent.status == "FAILED" and parent.error != TOLERATED_EXCEEDED:
        return f"The Distributed Map {parent.arn} failed as a whole: {parent.error}: {parent.cause}"
    return None


def row_of_record(
    item: Item, record: Mapping[str, Any] | None, written: datetime | None, parent: Ending, facts: BatchFacts
) -> Row:
    """Return the row of one item from its record; without a record, the parent's ending says what became of it.

    A record holds no times: ``ended_at`` is when it was written.
    """
    ended = written.astimezone(UTC).timestamp() if written else None
    if record is None:
        stopped = parent.execution.status in ("ABORTED", "TIMED_OUT")
        execution = Execution(
            parent.execution.arn,
            parent.execution.status if stopped else "FAILED",
            error=parent.execution.error or "ItemRecordMissing",
            cause="The item ended without a record: it was stopped, or its record could not be written",
        )
    else:
        answer = json.dumps(record)
        rejected = record["outcome"] == "rejected"
        execution = Execution(
            record.get("execution_arn") or parent.execution.arn,
            _STATUS[record["outcome"]],
            output=answer if record["outcome"] == "classified" else None,
            error=record.get("error"),
            cause=json.dumps({"errorMessage": answer}) if rejected else record.get("cause"),
            stopped_at=ended,
        )
    return result_row(Ending(item, parent.attempt, execution), facts)
